//! The CPU kernels, on plain slices. They are SIMD code on raw pointers, and each function states
//! its own contract.
#![allow(unsafe_op_in_unsafe_fn)]

pub(crate) mod attention;
pub(crate) mod elementwise;
pub(crate) mod keys;
pub(crate) mod left;
pub(crate) mod matmul;
pub(crate) mod pairs;
mod scratch;
pub(crate) mod shared;
pub(crate) mod tile;
