//! Selection of tokens in the last layer.

use candle_core::{Device, Result, Tensor};

/// Packed tokens whose hidden states are needed.
pub(crate) struct Selected {
    /// Indices of the selected tokens, `(selected,)`.
    rows: Tensor,
    /// For each packed token the index of its selected row, or the number of selected rows.
    places: Tensor,
}

impl Selected {
    /// Selects different tokens `at` of `tokens` packed tokens.
    pub(crate) fn new(at: &[u32], tokens: usize, device: &Device) -> Result<Self> {
        let mut places = vec![at.len() as u32; tokens];
        for (place, &token) in (0..).zip(at) {
            places[token as usize] = place;
        }
        Ok(Self { rows: Tensor::new(at, device)?, places: Tensor::new(places, device)? })
    }

    /// Returns the rows of the selected tokens: `(tokens, width)` to `(selected, width)`.
    pub(crate) fn select(&self, x: &Tensor) -> Result<Tensor> {
        x.index_select(&self.rows, 0)
    }

    /// Returns the rows at their tokens, and zeros elsewhere: `(selected, width)` to
    /// `(tokens, width)`. It is the derivative of [`Self::select`].
    pub(crate) fn spread(&self, dy: &Tensor) -> Result<Tensor> {
        let zero = Tensor::zeros((1, dy.dim(1)?), dy.dtype(), dy.device())?;
        Tensor::cat(&[dy, &zero], 0)?.index_select(&self.places, 0)
    }
}
