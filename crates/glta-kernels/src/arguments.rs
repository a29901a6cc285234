//! Checks the arguments of both backends, because the kernels do not check shapes.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::weights::Weight;

/// Returns an error unless the tensor has the shape `(rows, columns)`.
pub(crate) fn expect_shape(what: &str, tensor: &Tensor, rows: usize, columns: usize) -> Result<()> {
    match tensor.dims() {
        [r, c] if (*r, *c) == (rows, columns) => Ok(()),
        other => {
            Err(Error::Input(format!("{what} has shape {other:?}, expected ({rows}, {columns})")))
        }
    }
}

/// Sizes of linear layers with a common input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
}

impl Sizes {
    /// Returns the sizes of fused layers, and their concatenated biases `(outputs,)`.
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
                    return Err(Error::Input(format!(
                        "a linear layer with {outputs} outputs has a bias of {len} values"
                    )));
                }
                bias.get_or_insert_with(|| vec![0.0; outputs])[column..column + matrix.n]
                    .copy_from_slice(part);
            }
            column += matrix.n;
        }
        Ok((Self { inputs, outputs }, bias))
    }

    /// Returns an error if the arguments of a forward pass do not match the sizes.
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

    /// Returns an error if the argument of a backward pass does not match the sizes.
    pub(crate) fn check_backward(self, dy: &Tensor) -> Result<()> {
        let (rows, _) = dy.dims2()?;
        expect_shape("the gradient of a linear layer", dy, rows, self.outputs)
    }
}

/// Returns an error for ids outside a table with `rows` rows.
pub(crate) fn check_ids(ids: &[u32], rows: usize) -> Result<()> {
    match ids.iter().find(|&&id| id as usize >= rows) {
        Some(id) => Err(Error::Input(format!("id {id} is outside a table of {rows} rows"))),
        None => Ok(()),
    }
}

/// Returns an error for rows outside a tensor with `rows` rows; [`u32::MAX`] stands for no row.
pub(crate) fn check_rows(index: &[u32], rows: usize) -> Result<()> {
    match index.iter().find(|&&row| row != u32::MAX && row as usize >= rows) {
        Some(row) => Err(Error::Input(format!("row {row} of a tensor of {rows} rows"))),
        None => Ok(()),
    }
}

/// Returns an error unless there is one cache per sequence.
pub(crate) fn check_caches(caches: usize, sequences: usize) -> Result<()> {
    if caches == sequences {
        return Ok(());
    }
    Err(Error::Input(format!(
        "expected one cache per sequence, got {caches} caches for {sequences} sequences"
    )))
}

/// Returns an error if a rotary table has fewer positions than needed.
pub(crate) fn check_positions(table: usize, needed: usize) -> Result<()> {
    if needed <= table {
        return Ok(());
    }
    Err(Error::Input(format!("the rotary table has {table} positions, {needed} are needed")))
}

/// Returns an error unless a rotary table with `half` pairs per position fits heads of `dim`
/// columns.
pub(crate) fn check_rotated(half: usize, dim: usize) -> Result<()> {
    if 2 * half == dim {
        return Ok(());
    }
    Err(Error::Input(format!("the rotary table has {half} pairs, but heads have {dim} columns")))
}

/// Returns the number of positions of a rotary table of `half` pairs.
pub(crate) fn rotary_positions(cos: &[f32], sin: &[f32], half: usize) -> Result<usize> {
    if half == 0 || cos.len() != sin.len() || !cos.len().is_multiple_of(half) {
        let (cos, sin) = (cos.len(), sin.len());
        return Err(Error::Input(format!(
            "a rotary table of {half} pairs cannot have {cos} cosines and {sin} sines"
        )));
    }
    Ok(cos.len() / half)
}
