//! Frozen weight matrices, packed for the kernels.

mod buffer;
mod decode;
mod dense;
mod fields;
mod matrix;
mod pairs;
mod quantized;
mod row;

pub(crate) use buffer::Arena;
pub(crate) use decode::panel_scales;
pub(crate) use matrix::{DenseData, Matrix, Scales, Segment, Storage, Zeros};
#[cfg(test)]
pub(crate) use quantized::unpack_zeros;
pub(crate) use quantized::{GptqTensors, ScalesRef};
