//! The data and intermediate results that several settings of a linear model share.

use std::sync::Arc;

use glta_data::Interactions;

use crate::ease::Leave;
use crate::progress::Reporter;
use crate::solve::coarse::deflate;
use crate::solve::counts::{Counts, capped};
use crate::solve::dense;
use crate::solve::gram::Gram;
use crate::solved::Solved;
use crate::sparse::SparseRows;
use crate::weights::{Coarse, Weights};
use crate::{Ease, Error, Form, LinearStage, Result, TextNeighbours, TextVectors};

/// Training data and texts, with intermediate results that all settings share.
pub(crate) struct Problem {
    pub(crate) train: Interactions,
    pub(crate) text: Option<TextVectors>,
    neighbours: Option<Arc<TextNeighbours>>,
    limits: Limits,
    squares: Arc<Vec<f32>>,
    degrees: Arc<Vec<u32>>,
    /// Co-occurrence counts with truncated rows, computed on first use.
    cut: Option<Arc<Counts>>,
    /// Co-occurrence counts of all pairs, computed on first use.
    complete: Option<Arc<Counts>>,
}

/// Sizes that apply to every form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Maximum number of items for the dense form.
    pub(crate) max_items: usize,
    /// Maximum number of co-occurring items per item.
    pub(crate) rows: usize,
    /// Maximum number of text neighbours per item.
    pub(crate) text_neighbours: usize,
}

impl Problem {
    pub(crate) fn new(
        train: &Interactions,
        text: Option<TextVectors>,
        neighbours: Option<Arc<TextNeighbours>>,
        limits: Limits,
    ) -> Result<Self> {
        if let Some(text) = &text {
            text.check(train.n_items())?;
        }
        Ok(Self {
            train: train.clone(),
            squares: Arc::new(text.as_ref().map(TextVectors::squares).unwrap_or_default()),
            text,
            neighbours,
            limits,
            degrees: Arc::new(train.item_degrees()),
            cut: None,
            complete: None,
        })
    }

    /// Fits EASE with the given settings. `weight` is the weight of the text vectors in the Gram
    /// matrix.
    pub(crate) fn ease(
        &mut self,
        form: Form,
        l2: f64,
        weight: f64,
        reporter: &mut Reporter<'_>,
    ) -> Result<Ease> {
        let text = self.text.clone().filter(|_| weight > 0.0);
        let items = self.train.n_items();
        reporter.solved(0)?;
        let mut solved = Solved::default();
        let mut form = form;
        let (weights, diagonal, gram) = match form {
            Form::Dense => {
                check_items(items, self.limits.max_items)?;
                let text = text.as_ref().map(|text| (text, weight));
                let advance = &mut |share: f64| reporter.solved((share * items as f64) as usize);
                let (weights, diagonal) = dense::solve(&self.train, text, l2, advance)?;
                (Weights::Dense(weights), diagonal, None)
            }
            Form::Local { sources, rank } => {
                let whole = rank > 0 || sources >= items.saturating_sub(1);
                let (counts, complete) = self.counts(whole, reporter)?;
                let near = text.as_ref().and(self.neighbours.as_ref()).map(|near| &near.rows);
                let text = text.map(|text| (text, Arc::clone(&self.squares)));
                // The eigenvectors and the local systems must belong to the same matrix.
                let sampled = (rank > 0 && !complete).then(|| capped(&self.train));
                let train = sampled.as_ref().unwrap_or(&self.train);
                let degrees = match &sampled {
                    None => Arc::clone(&self.degrees),
                    Some(sampled) => Arc::new(sampled.item_degrees()),
                };
                let gram = Gram { counts, degrees, text, later: Vec::new(), weight, l2 };
                let advance = &mut |done: usize| reporter.solved(done);
                let (weights, diagonal, raised) = if rank > 0 {
                    let deflation = deflate(train, &gram, rank, &mut || advance(0))?;
                    let found = deflation.columns(&gram, near, sources, complete, advance)?;
                    form = Form::Local { sources, rank: deflation.values.len() };
                    solved.jacobi = !complete;
                    let vectors = deflation.vectors.mapv(|v| v as f32);
                    let coarse = Some(Coarse { vectors, weights: found.weights });
                    let rows = found.columns.transpose();
                    (Weights::Local { rows, coarse }, found.diagonal, found.raised)
                } else {
                    let found = gram.columns(near, sources, advance)?;
                    let rows: SparseRows = found.columns.transpose();
                    (Weights::Local { rows, coarse: None }, found.diagonal, found.raised)
                };
                if raised > 0 {
                    tracing::warn!(
                        "{raised} of {items} local systems with an `l2` of {l2} were not positive \
                         definite; their diagonal was raised"
                    );
                }
                solved.raised = raised;
                (weights, diagonal, (rank == 0).then_some(gram))
            }
        };
        let Limits { rows, text_neighbours, .. } = self.limits;
        let leave = Leave { l2, weight, rows, text_neighbours, text: self.text.clone() };
        let mut ease = Ease::new(weights, diagonal, &self.train, form, leave, gram);
        ease.solved = solved;
        Ok(ease)
    }

    /// Returns the co-occurrence counts, and whether they contain every pair. Rows are not
    /// truncated if `whole` (for a low-rank part, or because all items are sources) and if all
    /// pairs fit in the memory of the dense form.
    fn counts(&mut self, whole: bool, reporter: &mut Reporter<'_>) -> Result<(Arc<Counts>, bool)> {
        let most = (self.limits.max_items as u64).saturating_pow(2);
        let complete = whole && Counts::most_pairs(&self.train) <= most;
        let (kept, longest) = if complete {
            (&mut self.complete, usize::MAX)
        } else {
            (&mut self.cut, self.limits.rows)
        };
        if let Some(counts) = kept {
            return Ok((Arc::clone(counts), complete));
        }
        let counts = count(&self.train, longest, reporter)?;
        Ok((Arc::clone(kept.insert(counts)), complete))
    }
}

fn count(train: &Interactions, longest: usize, reporter: &mut Reporter<'_>) -> Result<Arc<Counts>> {
    let total = train.n_items() as u64;
    let advance = &mut |done: usize| reporter.stage(LinearStage::CoOccurrences, done as u64, total);
    advance(0)?;
    Ok(Arc::new(Counts::new(train, longest, advance)?))
}

/// Returns an error if a dense matrix would have more than `limit` items.
pub(crate) fn check_items(items: usize, limit: usize) -> Result<()> {
    if items <= limit {
        return Ok(());
    }
    Err(Error::TooManyItems { items, limit, gigabytes: 16.0 * (items as f64).powi(2) / 1e9 })
}
