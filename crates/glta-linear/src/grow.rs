//! A linear model that adds items and interactions, and forgets users.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use glta_data::Interactions;
use ndarray::{Array2, ArrayView1, ArrayView2};
use rayon::prelude::*;
use rustc_hash::FxHashMap;

use crate::idle::Idle;
use crate::keep::keep_best;
use crate::neighbours::EXACT_ITEMS;
use crate::neighbours::clusters::Clusters;
use crate::problem::{Limits, Problem};
use crate::progress::Reporter;
use crate::solve::counts::{LONGEST_LIST, counted};
use crate::solve::gram::{Gram, Own, Scratch};
use crate::sparse::SparseRows;
use crate::weights::Weights;
use crate::{Error, Form, LinearModel, Result, TextNeighbours, TextVectors};

/// Maximum number of text neighbours of a new item to which the item is added as a source.
const HEARD_BY: usize = 16;
/// Maximum number of sources that are added to an item after the fit.
const MORE_SOURCES: usize = 16;

/// A [`LinearModel`] that changes without a new fit.
///
/// In the local form, adding an item takes one search for its text neighbours and the solution of a
/// few small linear systems. New interactions change a user's own scores at once. They change the
/// scores of all users after [`fold`](Self::fold), which solves the columns of items with new
/// interactions again. A model in the dense form or with a low-rank part is fitted again as a
/// whole, with the same settings.
///
/// ```
/// use glta_data::Interactions;
/// use glta_linear::{Growing, LinearConfig, LinearModel, Solver, TextVectors};
/// use ndarray::array;
///
/// let pairs = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 2), (3, 2)];
/// let train = Interactions::from_pairs(4, 3, pairs)?;
/// let text = TextVectors::new(array![[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])?;
/// let config = LinearConfig { solvers: vec![Solver::Local], ..LinearConfig::default() };
/// let model = LinearModel::fit(&train, None, Some(&text), &config, 1)?;
///
/// let mut growing = Growing::new(model, &train, Some(&text))?;
/// // A new item like item 2; someone who has it is recommended that first.
/// let new = growing.add_items(Some(array![[0.1, 0.9]].view()), 1)?;
/// assert_eq!(new, 3..4);
/// let best = growing.model().top_items(&[3], 1, |item| item == 3);
/// assert_eq!(best[0].item, 2);
///
/// growing.add_interactions(&[(4, 3), (4, 0)])?;
/// assert_eq!(growing.history(4), [0, 3]);
/// growing.fold()?;
/// growing.forget_user(4)?;
/// assert!(growing.history(4).is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Growing {
    model: LinearModel,
    limits: Limits,
    text_neighbours: usize,
    /// Users' histories at the fit. The histories that changed later are in `model`.
    train: Interactions,
    /// For each user with added interactions, the items whose pairs are counted as co-occurrences.
    counted: FxHashMap<u32, Vec<u32>>,
    users: usize,
    text: Option<Texts>,
    local: Option<Local>,
    /// Items with added interactions that are not in the weights yet.
    touched: BTreeSet<u32>,
    idle: Idle<Scratch>,
}

/// Text vectors of the items of the fit and of later items, with their clusters.
#[derive(Debug)]
struct Texts {
    first: TextVectors,
    later: Vec<Vec<f32>>,
    clusters: Option<Clusters>,
}

/// The data of the local systems: the Gram matrix, the columns and the number of sources.
#[derive(Debug)]
struct Local {
    gram: Gram,
    /// The sources of item `j` and their weights in row `j`.
    columns: SparseRows,
    sources: usize,
}

impl Growing {
    /// Creates a growing model from a model that was fitted on `train` with the text vectors
    /// `text`. For a model from a file, co-occurrences are counted again, in about 0.1 ms per item.
    ///
    /// # Errors
    /// Returns an error for data or text vectors that differ from those of the fit.
    pub fn new(
        mut model: LinearModel,
        train: &Interactions,
        text: Option<&TextVectors>,
    ) -> Result<Self> {
        let items = model.degrees.len();
        if train.n_items() != items {
            return Err(Error::Grow(format!(
                "the model has {items} items, the training data {}",
                train.n_items()
            )));
        }
        if let Some(text) = text {
            text.check(items)?;
        }
        if train.item_degrees() != model.degrees {
            return Err(Error::Grow("the model was fitted on other training data".into()));
        }
        if text.is_none() && (model.report.text > 0.0 || model.text.is_some()) {
            return Err(Error::Grow("the model uses texts, but no text vectors are given".into()));
        }
        let local = match model.report.form {
            Form::Local { sources, rank: 0 } => {
                model.ease.leave.text = text.cloned();
                let (gram, columns) = model.ease.take_system()?;
                let dims = |text: &TextVectors| text.view().ncols();
                if gram
                    .text
                    .as_ref()
                    .map(|(own, _)| dims(own))
                    .is_some_and(|d| text.is_none_or(|text| dims(text) != d))
                {
                    return Err(Error::Grow("the model was fitted with other text vectors".into()));
                }
                Some(Local { gram, columns, sources })
            }
            _ => None,
        };
        let text = text.map(|text| Texts {
            clusters: (items > EXACT_ITEMS).then(|| Clusters::new(text)),
            first: text.clone(),
            later: Vec::new(),
        });
        let (rows, text_neighbours) = (model.ease.leave.rows, model.text_neighbours());
        let limits = Limits { max_items: 0, rows, text_neighbours };
        Ok(Self {
            limits,
            text_neighbours,
            model,
            train: train.clone(),
            counted: FxHashMap::default(),
            users: train.n_users(),
            text,
            local,
            touched: BTreeSet::new(),
            idle: Idle::default(),
        })
    }

    /// Returns the current model.
    pub fn model(&self) -> &LinearModel {
        &self.model
    }

    /// Returns the current model, which can then no longer grow.
    pub fn into_model(mut self) -> LinearModel {
        if let Some(Local { gram, columns, .. }) = self.local {
            self.model.ease.put_system(gram, columns);
        }
        self.model
    }

    /// Returns the items of a user in ascending order; empty for an unknown user.
    pub fn history(&self, user: u32) -> &[u32] {
        self.model.ease.history(user)
    }

    /// Returns the items of a user whose pairs are counted as co-occurrences.
    fn counted(&self, user: u32) -> Vec<u32> {
        let known = self.counted.get(&user).cloned();
        known.unwrap_or_else(|| counted(user, self.train.items(user)))
    }

    /// Returns the number of users, including those without items.
    pub fn n_users(&self) -> usize {
        self.users
    }

    /// Returns the number of items.
    pub fn n_items(&self) -> usize {
        self.model.degrees.len()
    }

    /// Returns the interactions of all users.
    ///
    /// # Errors
    /// Returns an error for more than `u32::MAX` users or items.
    pub fn interactions(&self) -> Result<Interactions> {
        let users = 0..self.users as u32;
        let pairs = users.flat_map(|user| self.history(user).iter().map(move |&i| (user, i)));
        Ok(Interactions::from_pairs(self.users, self.n_items(), pairs)?)
    }

    /// Returns the dimension of the text vectors; `None` for a model without text vectors.
    pub fn text_dim(&self) -> Option<usize> {
        self.text.as_ref().map(|text| text.first.view().ncols())
    }

    /// Returns the text vector of an item; zeros if the item has no text. Returns `None` for a
    /// model without text vectors and for an unknown item.
    pub fn text_vector(&self, item: u32) -> Option<&[f32]> {
        let text = self.text.as_ref()?;
        let (item, known) = (item as usize, text.first.n_items());
        if item < known {
            return Some(text.first.row(item));
        }
        text.later.get(item - known).map(Vec::as_slice)
    }

    /// Returns the text vectors of all items; `None` for a model without text vectors.
    ///
    /// # Errors
    /// Returns an error if a vector is not finite.
    pub fn text(&self) -> Result<Option<TextVectors>> {
        let Some(Texts { first, later, .. }) = &self.text else {
            return Ok(None);
        };
        if later.is_empty() {
            return Ok(Some(first.clone()));
        }
        let dim = first.view().ncols();
        let values = first.view().iter().copied().chain(later.iter().flatten().copied()).collect();
        let rows = first.n_items() + later.len();
        let all = Array2::from_shape_vec((rows, dim), values)
            .map_err(|e| Error::Grow(format!("text vectors: {e}")))?;
        Ok(Some(TextVectors::new(all)?))
    }

    /// Adds `count` items without interactions and returns their ids, which follow the existing
    /// ids. `vectors: (count, dim)` contains their text vectors, whitened and concatenated like
    /// those of the model; zeros for an item without a text.
    ///
    /// # Errors
    /// Returns an error for vectors of a different dimension than those of the model, and for
    /// missing vectors if the model has text vectors.
    pub fn add_items(
        &mut self,
        vectors: Option<ArrayView2<'_, f32>>,
        count: usize,
    ) -> Result<Range<u32>> {
        let dim = self.text_dim();
        let given = vectors.map(|vectors| vectors.dim());
        if given != dim.map(|dim| (count, dim)) {
            return Err(Error::Grow(format!(
                "text vectors of shape {given:?} do not fit {count} items of a model with {dim:?} \
                 dimensions"
            )));
        }
        if vectors.is_some_and(|vectors| vectors.iter().any(|v| !v.is_finite())) {
            return Err(Error::Grow("a text vector is not finite".into()));
        }
        let first = self.n_items() as u32;
        for nth in 0..count {
            let vector = vectors.map(|vectors| vectors.row(nth).to_vec());
            self.add_item(vector.unwrap_or_default())?;
        }
        if self.local.is_none() && count > 0 {
            self.refit()?;
        }
        self.model.items_changed();
        Ok(first..first + count as u32)
    }

    fn add_item(&mut self, vector: Vec<f32>) -> Result<()> {
        let item = self.n_items() as u32;
        let near = self.near(&vector, item, self.text_neighbours);
        if let Some(text) = &mut self.text {
            let unit = unit(&vector);
            if let (Some(clusters), Some(unit)) = (&mut text.clusters, &unit) {
                clusters.insert(item, ArrayView1::from(&unit[..]));
            }
            text.later.push(vector.clone());
        }
        self.model.degrees.push(0);
        let Some(Local { gram, columns, sources }) = &mut self.local else {
            return Ok(());
        };
        Arc::make_mut(&mut gram.degrees).push(0);
        if let Some((_, squares)) = &mut gram.text {
            Arc::make_mut(squares).push(vector.iter().map(|v| v * v).sum());
            gram.later.push(vector);
        }
        // Make both each other's neighbours.
        self.model.put_neighbours(item, &near);
        let items = gram.n_items();
        let ids: Vec<u32> = near.iter().map(|&(other, _)| other).collect();
        let own = self.idle.with(
            || Scratch::new(items),
            |scratch| {
                scratch.fit(items);
                gram.sources(item as usize, &ids, *sources, scratch);
                scratch.members.clone()
            },
        );
        let mut solve = vec![(item, own)];
        columns.replace(item as usize, Vec::new());
        self.model.ease.diagonal.push(0.0);
        let mut nearest = ids;
        let cosine = |other: u32| {
            let at = near.binary_search_by_key(&other, |&(other, _)| other);
            at.map_or(0.0, |at| near[at].1)
        };
        keep_best(&mut nearest, HEARD_BY, cosine);
        for other in nearest {
            let mut own = columns.row(other as usize).0.to_vec();
            if own.len() < *sources + MORE_SOURCES {
                // The new item has the largest id.
                own.push(item);
                solve.push((other, own));
            }
        }
        if let Weights::Local { rows, .. } = &mut self.model.ease.weights {
            rows.replace(item as usize, Vec::new());
        }
        self.solve(&solve)
    }

    /// Returns the `most` items, without `item`, whose text vectors have the largest positive
    /// cosine with `vector`, in ascending order of ids and with their cosines.
    fn near(&self, vector: &[f32], item: u32, most: usize) -> Vec<(u32, f32)> {
        let (Some(text), Some(unit)) = (&self.text, unit(vector)) else {
            return Vec::new();
        };
        let unit = ArrayView1::from(&unit[..]);
        let others = match &text.clusters {
            Some(clusters) => clusters.near(unit),
            None => (0..self.n_items() as u32).collect(),
        };
        let cosine = |&other: &u32| {
            let row = ArrayView1::from(self.text_vector(other).unwrap_or_default());
            let length = row.dot(&row).sqrt();
            if length > 0.0 { row.dot(&unit) / length } else { 0.0 }
        };
        let cosines: Vec<f32> = others.par_iter().with_min_len(1024).map(cosine).collect();
        let positive = (0..others.len() as u32)
            .filter(|&at| cosines[at as usize] > 0.0 && others[at as usize] != item);
        let mut best: Vec<u32> = positive.collect();
        keep_best(&mut best, most, |at| cosines[at as usize]);
        best.sort_unstable();
        best.into_iter().map(|at| (others[at as usize], cosines[at as usize])).collect()
    }

    /// Adds `(user, item)` pairs; known pairs change nothing. A user id beyond the known users adds
    /// users. The scores of the users in `pairs` change at once, those of other users with the next
    /// [`fold`](Self::fold). Once 2,000 items of a user are counted, further pairs of the user do
    /// not change the counts of co-occurrences.
    ///
    /// # Errors
    /// Returns [`Error::Grow`] for an unknown item. No pair is added then.
    pub fn add_interactions(&mut self, pairs: &[(u32, u32)]) -> Result<()> {
        if let Some(&(_, item)) = pairs.iter().find(|&&(_, item)| item as usize >= self.n_items()) {
            let items = self.n_items();
            return Err(Error::Grow(format!("item {item} is unknown: there are {items}")));
        }
        for &(user, item) in pairs {
            self.users = self.users.max(user as usize + 1);
            let history = self.history(user);
            let Err(at) = history.binary_search(&item) else {
                continue;
            };
            let mut history = history.to_vec();
            let mut pairs = self.counted(user);
            if let Some(Local { gram, .. }) = &mut self.local {
                if pairs.len() < LONGEST_LIST {
                    let counts = Arc::make_mut(&mut gram.counts);
                    pairs.iter().for_each(|&other| counts.add(item, other));
                    pairs.push(item);
                }
                Arc::make_mut(&mut gram.degrees)[item as usize] += 1;
            }
            self.counted.insert(user, pairs);
            history.insert(at, item);
            self.model.ease.changed.insert(user, history);
            self.model.degrees[item as usize] += 1;
            self.touched.insert(item);
        }
        Ok(())
    }

    /// Updates the weights with the added interactions, and returns the number of columns that were
    /// solved again. These are the columns of items with added interactions, whose sources are
    /// chosen again, and the columns with such an item among their sources.
    ///
    /// # Errors
    /// Returns an error if a system cannot be solved.
    pub fn fold(&mut self) -> Result<usize> {
        let touched: Vec<u32> = self.touched.iter().copied().collect();
        if touched.is_empty() {
            return Ok(0);
        }
        let solved = self.solve_touched(&touched, true)?;
        self.touched.clear();
        self.model.items_changed();
        Ok(solved)
    }

    /// Removes a user from the history, the counts and the weights. The weights then equal those of
    /// a fit without the user, with the same sources. Earlier additions are folded first.
    ///
    /// # Errors
    /// Returns an error if a system cannot be solved.
    pub fn forget_user(&mut self, user: u32) -> Result<()> {
        self.fold()?;
        let items = self.history(user).to_vec();
        if items.is_empty() {
            return Ok(());
        }
        let pairs = self.counted(user);
        self.counted.insert(user, Vec::new());
        self.model.ease.changed.insert(user, Vec::new());
        items.iter().for_each(|&item| self.model.degrees[item as usize] -= 1);
        if let Some(Local { gram, .. }) = &mut self.local {
            let counts = Arc::make_mut(&mut gram.counts);
            for (nth, &a) in pairs.iter().enumerate() {
                pairs[..nth].iter().for_each(|&b| counts.subtract(a, b));
            }
            let degrees = Arc::make_mut(&mut gram.degrees);
            items.iter().for_each(|&item| degrees[item as usize] -= 1);
        }
        self.solve_touched(&items, false)?;
        self.model.items_changed();
        Ok(())
    }

    /// Solves the columns of the items in `touched`, and the columns with one of these items among
    /// the sources. If `choose` is set, the sources of the items in `touched` are chosen again
    /// first.
    fn solve_touched(&mut self, touched: &[u32], choose: bool) -> Result<usize> {
        if self.local.is_none() {
            self.refit()?;
            return Ok(self.n_items());
        }
        let mut affected: BTreeSet<u32> = touched.iter().copied().collect();
        for &item in touched {
            affected.extend(self.model.ease.weights.targets(item as usize).unwrap_or_default());
        }
        let mut solve: Vec<(u32, Vec<u32>)> = Vec::with_capacity(affected.len());
        if let Some(local) = &self.local {
            let sources = |items: &[u32]| -> Vec<(u32, Vec<u32>)> {
                let of = |&item: &u32| {
                    let items = local.gram.n_items();
                    let own = self.idle.with(
                        || Scratch::new(items),
                        |scratch| {
                            scratch.fit(items);
                            self.sources_of(local, item, scratch)
                        },
                    );
                    (item, own)
                };
                items.par_iter().map(of).collect()
            };
            if choose {
                solve = sources(touched);
                // The sources of a touched item may also get it as a source.
                let mut others: BTreeSet<u32> = BTreeSet::new();
                for (item, own) in &solve {
                    let deaf = |other: &&u32| {
                        local.columns.row(**other as usize).0.binary_search(item).is_err()
                    };
                    others.extend(own.iter().filter(deaf));
                }
                others.retain(|item| touched.binary_search(item).is_err());
                let others: Vec<u32> = others.into_iter().collect();
                solve.extend(sources(&others));
            }
            let known: BTreeSet<u32> = solve.iter().map(|&(item, _)| item).collect();
            for &item in affected.difference(&known) {
                solve.push((item, local.columns.row(item as usize).0.to_vec()));
            }
        }
        self.solve(&solve)?;
        Ok(solve.len())
    }

    fn sources_of(&self, local: &Local, item: u32, scratch: &mut Scratch) -> Vec<u32> {
        let near = self.near(local.gram.vector(item as usize), item, self.text_neighbours);
        let ids: Vec<u32> = near.into_iter().map(|(other, _)| other).collect();
        local.gram.sources(item as usize, &ids, local.sources, scratch);
        std::mem::take(&mut scratch.members)
    }

    /// Solves the columns in `wanted`, each with its sources.
    fn solve(&mut self, wanted: &[(u32, Vec<u32>)]) -> Result<()> {
        let Some(Local { gram, columns, .. }) = &mut self.local else {
            return Ok(());
        };
        let items = gram.n_items();
        let (shared, idle) = (&*gram, &self.idle);
        let solved: Result<Vec<_>> = wanted
            .par_iter()
            .map(|(item, sources)| {
                idle.with(
                    || Scratch::new(items),
                    |scratch| {
                        scratch.fit(items);
                        shared.column(*item as usize, sources, Own::default(), scratch)
                    },
                )
            })
            .collect();
        let Weights::Local { rows, .. } = &mut self.model.ease.weights else {
            return Ok(());
        };
        for ((item, sources), column) in wanted.iter().zip(solved?) {
            let entries: Vec<(u32, f32)> =
                sources.iter().copied().zip(column.weights.iter().map(|&w| w as f32)).collect();
            let gone: Vec<u32> = columns.row(*item as usize).0.to_vec();
            for source in gone.into_iter().filter(|s| sources.binary_search(s).is_err()) {
                rows.take(source as usize, *item);
            }
            for &(source, weight) in &entries {
                rows.put(source as usize, *item, weight);
            }
            columns.replace(*item as usize, entries);
            self.model.ease.diagonal[*item as usize] = column.diagonal;
        }
        Ok(())
    }

    /// Fits the whole model again on the current interactions with the same settings.
    fn refit(&mut self) -> Result<()> {
        let (train, text) = (self.interactions()?, self.text()?);
        let near = text.as_ref().map(|text| TextNeighbours::find(text, self.text_neighbours));
        let near = near.transpose()?.map(Arc::new);
        let report = self.model.report.clone();
        // Count all pairs if a dense matrix over the items is possible.
        let limits = Limits { max_items: self.n_items().max(20_000), ..self.limits };
        let mut problem = Problem::new(&train, text, near.clone(), limits)?;
        let mut silent = glta_core::Silent;
        let mut reporter = Reporter::new(&mut silent);
        let ease = problem.ease(report.form, report.l2, report.text, &mut reporter)?;
        let by_source = near.map(|near| Arc::new(near.by_source(crate::fit::POWER)));
        self.model = LinearModel::new(ease, by_source, &train, report);
        (self.train, self.counted) = (train, FxHashMap::default());
        Ok(())
    }
}

/// Returns the vector scaled to unit norm; `None` for a zero vector.
fn unit(vector: &[f32]) -> Option<Vec<f32>> {
    let length = vector.iter().map(|v| v * v).sum::<f32>().sqrt();
    (length > 0.0).then(|| vector.iter().map(|v| v / length).collect())
}
