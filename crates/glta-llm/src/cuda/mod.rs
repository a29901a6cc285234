//! The model's operations on an NVIDIA GPU.
//!
//! Everything here is plain Rust over tensors: it allocates results, computes
//! launch parameters and calls a `Driver` to launch the kernels of `kernels/*.cu`.
//! There are three drivers with the same functions: CUDA with the feature `cuda`,
//! one that refuses without it, and in this crate's own tests one that runs the
//! kernels on the host. Code above therefore needs no `cfg`.
//!
//! What layers multiply has the dtype of [`Accelerator`]; sums are f32, and so is the
//! stream of states that layers add to, and its gradient.

mod accelerator;
pub(crate) mod attention;
pub(crate) mod elementwise;
mod kernels;
pub(crate) mod keys;
mod launch;
mod linear;
#[cfg(test)]
mod model_tests;
#[cfg(any(feature = "cuda", test))]
mod names;
#[cfg(feature = "cuda")]
mod ptx;
mod quantized;
#[cfg(test)]
mod tests;
mod tokens;

#[cfg(test)]
#[path = "emulated.rs"]
mod driver;
#[cfg(all(feature = "cuda", not(test)))]
mod driver;
#[cfg(not(any(feature = "cuda", test)))]
#[path = "absent.rs"]
mod driver;

pub(crate) use accelerator::Accelerator;
pub(crate) use linear::{Linear, table};
pub(crate) use tokens::Tokens;
