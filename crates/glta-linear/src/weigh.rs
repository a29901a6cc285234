//! The weights of neighbours and popularity beside EASE, on validation data.

use glta_core::{pick, stream};
use glta_data::Interactions;
use rayon::prelude::*;

use crate::LinearModel;

/// Length of the lists that are measured.
const LENGTH: usize = 10;
/// Users of a measurement.
const USERS: usize = 20_000;
/// Users whose sums are added one after the other.
const BLOCK: usize = 64;

/// Users whose validation items are searched for.
pub(crate) struct Measured<'a> {
    train: &'a Interactions,
    valid: &'a Interactions,
    users: Vec<u32>,
}

/// What an item's score is made of, apart from the weights of its parts.
#[derive(Debug, Clone, Copy)]
struct Parts {
    item: u32,
    ease: f32,
    text: f32,
    popularity: f32,
}

impl<'a> Measured<'a> {
    /// Users with validation items; at most 20,000, drawn by `seed`.
    pub(crate) fn new(train: &'a Interactions, valid: &'a Interactions, seed: u64) -> Self {
        let users: Vec<u32> =
            (0..valid.n_users() as u32).filter(|&user| !valid.items(user).is_empty()).collect();
        let users = pick(&users, USERS, &mut stream(seed, "validation users", &[]));
        Self { train, valid, users }
    }

    /// N@10 of `model` under each pair of weights of neighbours and popularity, all others
    /// of its settings as they are.
    pub(crate) fn ndcg(&self, model: &LinearModel, weights: &[(f32, f32)]) -> Vec<f64> {
        let order = model.by_popularity();
        let blocks: Vec<Vec<f64>> = self
            .users
            .par_chunks(BLOCK)
            .map(|users| {
                let mut sums = vec![0.0; weights.len()];
                let mut scratch = Scratch::new(model.degrees.len());
                for &user in users {
                    let parts = scratch.parts(model, &order, self.train.items(user));
                    let wanted = self.valid.items(user);
                    let ideal: f64 = (0..wanted.len().min(LENGTH)).map(gain).sum();
                    for (sum, &weights) in sums.iter_mut().zip(weights) {
                        *sum += found(&parts, wanted, weights) / ideal;
                    }
                }
                sums
            })
            .collect();
        let mean = |at: usize| {
            blocks.iter().map(|sums| sums[at]).sum::<f64>() / self.users.len().max(1) as f64
        };
        (0..weights.len()).map(mean).collect()
    }
}

fn gain(rank: usize) -> f64 {
    1.0 / (rank as f64 + 2.0).log2()
}

/// The discounted gain of the items that are among the first ten.
fn found(parts: &[Parts], wanted: &[u32], (neighbours, popularity): (f32, f32)) -> f64 {
    let score = |p: &Parts| p.ease + neighbours * p.text + popularity * p.popularity;
    let hits = parts.iter().filter(|p| wanted.binary_search(&p.item).is_ok());
    hits.map(|hit| {
        let own = score(hit);
        let above = |p: &&Parts| {
            let other = score(p);
            other > own || (other == own && p.item < hit.item)
        };
        match parts.iter().filter(above).count() {
            rank if rank < LENGTH => gain(rank),
            _ => 0.0,
        }
    })
    .sum()
}

/// Memory of a thread.
struct Scratch {
    ease: Vec<f32>,
    text: Vec<f32>,
    seen: Vec<bool>,
}

impl Scratch {
    fn new(items: usize) -> Self {
        Self { ease: vec![0.0; items], text: vec![0.0; items], seen: vec![false; items] }
    }

    /// The parts of the items that can be among the first ten: those to which an item of the
    /// user adds, and the first ten others by popularity and by id.
    fn parts(&mut self, model: &LinearModel, order: &[u32], own: &[u32]) -> Vec<Parts> {
        let n = model.degrees.len();
        model.ease.weights.add(own, &mut self.ease);
        model.add_neighbours(own, &mut self.text);
        let mut items: Vec<u32> = Vec::new();
        let few: Option<Vec<&[u32]>> =
            own.iter().map(|&item| model.ease.weights.targets(item as usize)).collect();
        match few {
            None => items.extend(0..n as u32),
            Some(targets) => {
                let near = own.iter().map(|&item| model.neighbour_targets(item as usize));
                for &item in targets.into_iter().chain(near).flatten() {
                    if !std::mem::replace(&mut self.seen[item as usize], true) {
                        items.push(item);
                    }
                }
                let touched = items.len();
                let more = |items: &mut Vec<u32>, seen: &mut [bool], id: u32| {
                    let new = !seen[id as usize] && own.binary_search(&id).is_err();
                    if new {
                        seen[id as usize] = true;
                        items.push(id);
                    }
                    new
                };
                for ids in [
                    &mut order.iter().copied() as &mut dyn Iterator<Item = u32>,
                    &mut (0..n as u32),
                ] {
                    let mut left = LENGTH;
                    for id in ids {
                        if left == 0 {
                            break;
                        }
                        // One that the other order has taken counts for this one too.
                        let taken = items[touched..].contains(&id);
                        left -= usize::from(more(&mut items, &mut self.seen, id) || taken);
                    }
                }
            }
        }
        let kept = items.iter().filter(|item| own.binary_search(item).is_err());
        let parts = kept.map(|&item| Parts {
            item,
            ease: self.ease[item as usize],
            text: self.text[item as usize] * model.neighbour_count(item as usize),
            popularity: model.log_popularity(item as usize),
        });
        let parts = parts.collect();
        if items.len() == n {
            self.ease.fill(0.0);
            self.text.fill(0.0);
        }
        for &item in items.iter().chain(own) {
            (self.ease[item as usize], self.text[item as usize]) = (0.0, 0.0);
            self.seen[item as usize] = false;
        }
        parts
    }
}
