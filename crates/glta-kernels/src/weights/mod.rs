//! Frozen weight matrices, packed for the kernels.

mod buffer;
mod decode;
mod dense;
mod fields;
mod matrix;
mod pairs;
mod quantized;
mod row;

pub use buffer::Arena;
pub(crate) use decode::panel_scales;
pub(crate) use matrix::{DenseData, Scales, Segment, Storage, Zeros};
pub use matrix::{Matrix, Weight};
pub use quantized::{GptqTensors, ScalesRef};
