//! Checks of arguments that both backends make: kernels take shapes on trust.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::weights::Weight;

/// Refuses a tensor of another shape than `(rows, columns)`.
pub(crate) fn expect_shape(what: &str, tensor: &Tensor, rows: usize, columns: usize) -> Result<()> {
    match tensor.dims() {
        [r, c] if (*r, *c) == (rows, columns) => Ok(()),
        other => Err(Error::Input(format!(
            "{what} has the shape {other:?}, expected ({rows}, {columns})"
        ))),
    }
}

/// Sizes of linear layers that read the same input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
}

impl Sizes {
    /// Of these layers, and their biases in one, `(outputs,)`.
    pub(crate) fn fused(parts: &[Weight]) -> Result<(Self, Option<Vec<f32>>)> {
        let inputs = parts.first().map_or(0, |(m, _)| m.k);
        let outputs = parts.iter().map(|(m, _)| m.n).sum();
        if inputs == 0 || outputs == 0 {
            return Err(Error::Input("linear layers without inputs or outputs".into()));
        }
        let (mut bias, mut column) = (None, 0);
        for (matrix, part) in parts {
            if matrix.k != inputs {
                let other = matrix.k;
                return Err(Error::Input(format!(
                    "layers of {inputs} and {other} inputs cannot read the same input"
                )));
            }
            if let Some(part) = part {
                if part.len() != matrix.n {
                    let (len, outputs) = (part.len(), matrix.n);
                    return Err(Error::Input(format!("a bias of {len} for {outputs} outputs")));
                }
                bias.get_or_insert_with(|| vec![0.0; outputs])[column..column + matrix.n]
                    .copy_from_slice(part);
            }
            column += matrix.n;
        }
        Ok((Self { inputs, outputs }, bias))
    }

    /// Whether the arguments of a forward pass fit.
    pub(crate) fn check_forward(self, x: &Tensor, residual: Option<&Tensor>) -> Result<()> {
        let (rows, _) = x.dims2()?;
        expect_shape("the input of a linear layer", x, rows, self.inputs)?;
        match residual {
            Some(residual) => {
                expect_shape("the residual of a linear layer", residual, rows, self.outputs)
            }
            None => Ok(()),
        }
    }

    /// Whether the argument of a backward pass fits.
    pub(crate) fn check_backward(self, dy: &Tensor) -> Result<()> {
        let (rows, _) = dy.dims2()?;
        expect_shape("the gradient of a linear layer", dy, rows, self.outputs)
    }
}

/// Refuses ids outside a table of so many rows.
pub(crate) fn check_ids(ids: &[u32], rows: usize) -> Result<()> {
    match ids.iter().find(|&&id| id as usize >= rows) {
        Some(id) => Err(Error::Input(format!("id {id} is outside a table of {rows} rows"))),
        None => Ok(()),
    }
}

/// Refuses another number of caches than sequences.
pub(crate) fn check_caches(caches: usize, sequences: usize) -> Result<()> {
    if caches == sequences {
        return Ok(());
    }
    Err(Error::Input(format!("{caches} caches for {sequences} sequences")))
}

/// Refuses a rotary table that lacks some of the positions.
pub(crate) fn check_positions(table: usize, needed: usize) -> Result<()> {
    if needed <= table {
        return Ok(());
    }
    Err(Error::Input(format!("a rotary table of {table} positions where {needed} are needed")))
}

/// Refuses a rotary table of another head size.
pub(crate) fn check_rotated(half: usize, dim: usize) -> Result<()> {
    if 2 * half == dim {
        return Ok(());
    }
    Err(Error::Input(format!("a rotary table of {half} pairs for heads of {dim}")))
}

/// Positions of a rotary table of `half` pairs.
pub(crate) fn rotary_positions(cos: &[f32], sin: &[f32], half: usize) -> Result<usize> {
    if half == 0 || cos.len() != sin.len() || !cos.len().is_multiple_of(half) {
        let (cos, sin) = (cos.len(), sin.len());
        return Err(Error::Input(format!("{cos} cosines and {sin} sines of {half} pairs")));
    }
    Ok(cos.len() / half)
}
