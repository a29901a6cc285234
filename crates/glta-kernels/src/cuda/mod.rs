//! A decoder's operations on an NVIDIA GPU.
//!
//! This module is plain Rust over tensors. It allocates results, computes launch parameters, and
//! calls a `Stream` to launch the kernels of `kernels/*.cu`, which a `Driver` does or a recording
//! keeps. The feature `cuda` has a driver for
//! GPUs; the feature `emulator` has one that runs the kernels on the host. Without the feature
//! `cuda`, creating a [`Cuda`] for a device is an error, and code above needs no `cfg`.
//!
//! The operands of products have the dtype of [`Cuda`]. Sums, the residual stream and its gradient
//! are f32.

#[cfg(not(feature = "cuda"))]
mod absent;
mod attention;
mod backend;
mod caches;
mod call;
mod decoder;
#[cfg(test)]
mod decoder_tests;
mod device;
mod driver;
mod elementwise;
#[cfg(feature = "emulator")]
mod emulator;
mod fragments;
mod kept;
mod kernels;
mod keys;
mod launch;
mod linear;
#[cfg(any(feature = "cuda", feature = "emulator"))]
mod names;
mod norm;
#[cfg(feature = "cuda")]
mod nvidia;
#[cfg(feature = "cuda")]
mod ptx;
mod quantized;
mod rotary;
mod stream;
#[cfg(test)]
mod tests;
mod tokens;

pub use device::Cuda;
