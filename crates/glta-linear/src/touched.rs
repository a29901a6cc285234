//! Scores the few items to which a user's items contribute.

use std::cmp::Ordering;

use glta_metrics::Ranked;

use crate::LinearModel;
use crate::degrees::{FEW, PopularityTerms};
use crate::exponentials::sum_of_exponentials;

/// The summands of an item's score, before they are multiplied by their weights.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts {
    pub(crate) item: u32,
    pub(crate) ease: f32,
    pub(crate) text: f32,
    pub(crate) popularity: f32,
}

/// Sums per item, which are zero between two uses.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    ease: Vec<f32>,
    text: Vec<f32>,
    state: Vec<State>,
}

/// The reason why an item is a candidate for the list, if any.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum State {
    #[default]
    Out,
    /// One of the user's items contributes to the item.
    Touched,
    /// None of the user's items contributes, but the item is among the first in an order.
    Other,
}

impl Sums {
    /// Returns the parts of the items that can be among the first `k` of a user with the items
    /// `own`. These are the items to which one of `own` contributes, and the first `k` other items
    /// in the order of `by_popularity` and in the order of ids. Items for which `skip` returns true
    /// are left out.
    pub(crate) fn parts<T>(
        &mut self,
        model: &LinearModel,
        own: &[u32],
        k: usize,
        skip: impl Fn(u32) -> bool,
        each: impl Fn(Parts) -> T,
    ) -> Vec<T> {
        let n = model.degrees.len();
        self.ease.resize(n, 0.0);
        self.text.resize(n, 0.0);
        self.state.resize(n, State::Out);
        let own = || own.iter().copied().filter(|&item| (item as usize) < n);
        let known: Vec<u32> = own().collect();
        model.ease.weights.add(&known, &mut self.ease);
        model.add_neighbours(&known, &mut self.text);
        let mut items: Vec<u32> = Vec::new();
        let few: Option<Vec<&[u32]>> =
            known.iter().map(|&item| model.ease.weights.targets(item as usize)).collect();
        let Some(targets) = few else {
            return self.all_parts(model, each);
        };
        let near = known.iter().map(|&item| model.neighbour_targets(item as usize));
        for &item in targets.into_iter().chain(near).flatten() {
            let state = &mut self.state[item as usize];
            if *state == State::Out {
                *state = State::Touched;
                items.push(item);
            }
        }
        self.others(&mut items, k, model.by_popularity().iter().copied(), &skip);
        self.others(&mut items, k, 0..n as u32, &skip);
        let made = items.iter().map(|&item| {
            let i = item as usize;
            let parts = Parts {
                item,
                ease: self.ease[i],
                text: self.text[i] * model.neighbour_count(i),
                popularity: model.log_popularity(i),
            };
            (self.ease[i], self.text[i], self.state[i]) = (0.0, 0.0, State::Out);
            each(parts)
        });
        let made = made.collect();
        // Reset the known items too, because `items` does not contain all of them.
        for item in known {
            (self.ease[item as usize], self.text[item as usize]) = (0.0, 0.0);
        }
        made
    }

    /// Returns the parts of all items.
    fn all_parts<T>(&mut self, model: &LinearModel, each: impl Fn(Parts) -> T) -> Vec<T> {
        let sums = self.ease.iter_mut().zip(&mut self.text).enumerate();
        let made = sums.map(|(i, (ease, text))| {
            let (ease, text) = (std::mem::take(ease), std::mem::take(text));
            each(Parts {
                item: i as u32,
                ease,
                text: text * model.neighbour_count(i),
                popularity: model.log_popularity(i),
            })
        });
        made.collect()
    }

    /// Adds the first `k` items of an order to which no item contributes.
    fn others(
        &mut self,
        items: &mut Vec<u32>,
        k: usize,
        order: impl Iterator<Item = u32>,
        skip: impl Fn(u32) -> bool,
    ) {
        let mut left = k;
        for id in order {
            if left == 0 {
                break;
            }
            let state = &mut self.state[id as usize];
            if *state == State::Touched || skip(id) {
                continue;
            }
            left -= 1;
            // The other order may have added the item.
            if *state == State::Out {
                *state = State::Other;
                items.push(id);
            }
        }
    }
}

impl LinearModel {
    /// Returns the best `k` items for a user with `items`, best first. Unknown ids are ignored, and
    /// items for which `skip` returns true are left out.
    ///
    /// The result equals sorting [`score_items`](Self::score_items), but a local model only
    /// computes the items to which `items` contribute, and the most popular ones.
    ///
    /// ```
    /// # use glta_data::Interactions;
    /// # use glta_linear::{LinearConfig, LinearModel};
    /// let train = Interactions::from_pairs(3, 4, [(0, 0), (0, 1), (1, 0), (1, 1), (2, 3)])?;
    /// let model = LinearModel::fit(&train, None, None, &LinearConfig::default(), 1)?;
    /// let best = model.top_items(&[0], 2, |item| item == 0);
    /// assert_eq!(best[0].item, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn top_items(&self, items: &[u32], k: usize, skip: impl Fn(u32) -> bool) -> Vec<Ranked> {
        let scored = self.scored(items, k, &skip);
        best(scored, k, skip)
    }

    /// Returns [`top_items`](Self::top_items) with log-probabilities among all items instead of
    /// scores.
    pub fn top_log_probabilities(
        &self,
        items: &[u32],
        k: usize,
        skip: impl Fn(u32) -> bool,
    ) -> Vec<Ranked> {
        let scored = self.scored(items, k, &skip);
        let normaliser = self.log_normaliser(&scored);
        let mut best = best(scored, k, skip);
        best.iter_mut().for_each(|ranked| ranked.score -= normaliser);
        best
    }

    /// Returns the scores of the items that can be among the first `k`.
    fn scored(&self, items: &[u32], k: usize, skip: &impl Fn(u32) -> bool) -> Vec<Ranked> {
        let weights = (self.report.neighbours, self.report.popularity);
        let ranked = |parts: Parts| Ranked {
            item: parts.item,
            score: parts.score(weights) * self.report.temperature,
        };
        self.idle.with(Sums::default, |sums| sums.parts(self, items, k, skip, ranked))
    }

    /// Returns the log-sum-exp of the scores of all items. The score of an item that is not in
    /// `scored` comes from popularity alone.
    fn log_normaliser(&self, scored: &[Ranked]) -> f32 {
        let factor = self.report.temperature * self.report.popularity;
        let logit = |degree: u32| f64::from(factor * self.log_of(degree));
        let PopularityTerms { shift, sum, exps } = self.popularity.get_or_init(|| {
            let all = || self.degrees.iter().map(|&degree| logit(degree));
            let shift = all().fold(0.0, f64::max);
            let sum = all().map(|p| (p - shift).exp()).sum();
            let exps = (0..FEW).map(|degree| (logit(degree) - shift).exp()).collect();
            PopularityTerms { shift, sum, exps }
        });
        let largest = scored.iter().map(|ranked| ranked.score).fold(0.0, f32::max);
        let top = largest.max(*shift as f32);
        let own = sum_of_exponentials(scored.iter().map(|ranked| ranked.score), top);
        let top = f64::from(top);
        if scored.len() == self.degrees.len() {
            return (top + own.ln()) as f32;
        }
        let alone = scored.iter().map(|ranked| {
            let degree = self.degrees[ranked.item as usize];
            let few = exps.get(degree as usize).copied();
            few.unwrap_or_else(|| (logit(degree) - shift).exp())
        });
        let others = (sum - alone.sum::<f64>()) * (shift - top).exp();
        (top + (own + others).max(f64::MIN_POSITIVE).ln()) as f32
    }
}

/// Returns the `k` items with the highest scores that are not skipped, best first. Ties go to the
/// lower id.
fn best(mut ranked: Vec<Ranked>, k: usize, skip: impl Fn(u32) -> bool) -> Vec<Ranked> {
    // Usually most of the first ones are not skipped, so the others need not be checked.
    let first = 2 * k + 64;
    if ranked.len() > 2 * first {
        let mut kept = first_of(&ranked, first);
        kept.retain(|ranked| !skip(ranked.item));
        if kept.len() >= k {
            kept.sort_unstable_by(order);
            kept.truncate(k);
            return kept;
        }
    }
    ranked.retain(|ranked| !skip(ranked.item));
    if ranked.len() > k && k > 0 {
        ranked.select_nth_unstable_by(k - 1, order);
    }
    ranked.truncate(k);
    ranked.sort_unstable_by(order);
    ranked
}

/// Returns the first `count` items in [`order`], unsorted. Most items cost only one comparison.
fn first_of(ranked: &[Ranked], count: usize) -> Vec<Ranked> {
    let mut kept: Vec<Ranked> = Vec::with_capacity(2 * count);
    let mut last: Option<Ranked> = None;
    for ranked in ranked {
        if last.is_some_and(|last| order(ranked, &last) == Ordering::Greater) {
            continue;
        }
        kept.push(*ranked);
        if kept.len() == 2 * count {
            kept.select_nth_unstable_by(count - 1, order);
            kept.truncate(count);
            last = kept.last().copied();
        }
    }
    if kept.len() > count {
        kept.select_nth_unstable_by(count - 1, order);
        kept.truncate(count);
    }
    kept
}

/// Orders by descending score, then by ascending id.
fn order(a: &Ranked, b: &Ranked) -> Ordering {
    b.score.total_cmp(&a.score).then(a.item.cmp(&b.item))
}

impl Parts {
    pub(crate) fn score(&self, (neighbours, popularity): (f32, f32)) -> f32 {
        self.ease + neighbours * self.text + popularity * self.popularity
    }
}
