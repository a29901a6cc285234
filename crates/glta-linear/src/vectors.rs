use std::sync::Arc;

use ndarray::{Array2, ArrayView2, ArrayViewMut1, Axis, s};

use crate::{Error, Result};

/// Text vectors of all items, `(items, dim)`. The vector of an item without a text is zero.
///
/// A clone shares the memory of the original.
///
/// ```
/// use glta_linear::TextVectors;
/// use ndarray::array;
///
/// // Two encoders; the second has read only the first text.
/// let joined = TextVectors::join(&[
///     array![[0.6, 0.8], [1.0, 0.0]].view(),
///     array![[1.0], [0.0]].view(),
/// ])?;
/// assert_eq!(joined.view().dim(), (2, 3));
/// assert!((joined.view()[[0, 2]] - 0.5f32.sqrt()).abs() < 1e-6);
/// # Ok::<(), glta_linear::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct TextVectors(Arc<Array2<f32>>);

impl TextVectors {
    /// Checks vectors `(items, dim)` and takes ownership of them.
    ///
    /// # Errors
    /// Returns [`Error::TextVectors`] if a value is not finite.
    pub fn new(vectors: Array2<f32>) -> Result<Self> {
        if let Some(((item, _), _)) = vectors.indexed_iter().find(|(_, v)| !v.is_finite()) {
            return Err(Error::TextVectors(format!("the vector of item {item} is not finite")));
        }
        Ok(Self(Arc::new(vectors.as_standard_layout().into_owned())))
    }

    /// Concatenates the vectors of several encoders, each `(items, dim)` with its own `dim` and
    /// with rows of unit norm or zeros. The result is divided by the square root of the number of
    /// encoders, so a row has unit norm if every encoder has read the text.
    ///
    /// # Errors
    /// Returns [`Error::TextVectors`] without an encoder, for different numbers of items, or for a
    /// value that is not finite.
    pub fn join(encoders: &[ArrayView2<'_, f32>]) -> Result<Self> {
        let Some(first) = encoders.first() else {
            return Err(Error::TextVectors("at least one encoder is needed".into()));
        };
        let (items, dim) = (first.nrows(), encoders.iter().map(|e| e.ncols()).sum());
        let mut joined = Array2::zeros((items, dim));
        let (scale, mut start) = (1.0 / (encoders.len() as f32).sqrt(), 0);
        for encoder in encoders {
            if encoder.nrows() != items {
                return Err(Error::TextVectors(format!(
                    "one encoder has {items} rows, another has {}",
                    encoder.nrows()
                )));
            }
            let end = start + encoder.ncols();
            joined.slice_mut(s![.., start..end]).assign(&encoder.mapv(|v| v * scale));
            start = end;
        }
        Self::new(joined)
    }

    /// Returns the vectors, `(items, dim)`.
    pub fn view(&self) -> ArrayView2<'_, f32> {
        self.0.view()
    }

    /// Returns the number of items, including those without a text.
    pub fn n_items(&self) -> usize {
        self.0.nrows()
    }

    pub(crate) fn check(&self, items: usize) -> Result<()> {
        if self.n_items() == items {
            return Ok(());
        }
        Err(Error::TextVectors(format!("expected {items}, one per item, got {}", self.n_items())))
    }

    /// Returns the vectors scaled to unit norm; zeros for items without a text.
    pub(crate) fn unit(&self) -> Array2<f32> {
        let mut unit = Array2::clone(&self.0);
        unit.axis_iter_mut(Axis(0)).for_each(scale);
        unit
    }

    /// Returns the vectors of some items, scaled to unit norm; zeros for items without a text.
    pub(crate) fn unit_rows(&self, items: &[u32]) -> Array2<f32> {
        let rows: Vec<usize> = items.iter().map(|&item| item as usize).collect();
        let mut unit = self.0.select(Axis(0), &rows);
        unit.axis_iter_mut(Axis(0)).for_each(scale);
        unit
    }

    /// Returns whether an item has a text.
    pub(crate) fn has_text(&self, item: usize) -> bool {
        self.row(item).iter().any(|&v| v != 0.0)
    }

    /// Returns the squared lengths, `(items,)`.
    pub(crate) fn squares(&self) -> Vec<f32> {
        self.0.axis_iter(Axis(0)).map(|row| row.dot(&row)).collect()
    }

    /// Returns the vector of an item, `(dim,)`; empty for an unknown item.
    pub fn row(&self, item: usize) -> &[f32] {
        let dim = self.0.ncols();
        // The array has standard layout by construction.
        let row = self.0.as_slice().and_then(|all| all.get(item * dim..(item + 1) * dim));
        row.unwrap_or_default()
    }
}

/// Scales a nonzero row to unit norm.
fn scale(mut row: ArrayViewMut1<'_, f32>) {
    let length = row.dot(&row).sqrt();
    if length > 0.0 {
        row /= length;
    }
}
