//! A decoder's operations on an NVIDIA GPU.
//!
//! Everything here is plain Rust over tensors: it allocates results, computes launch
//! parameters and calls a `Driver` to launch the kernels of `kernels/*.cu`. There are two
//! drivers: CUDA with the feature `cuda`, and with the feature `emulator` one that runs
//! the kernels on the host. Without the feature `cuda` no [`Cuda`] can be made for a
//! device, and code above needs no `cfg`.
//!
//! What layers multiply has the dtype of [`Cuda`]; sums are f32, and so is the stream of
//! states that layers add to, and its gradient.

#[cfg(not(feature = "cuda"))]
mod absent;
mod attention;
mod backend;
mod caches;
mod device;
mod driver;
mod elementwise;
#[cfg(feature = "emulator")]
mod emulator;
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
#[cfg(test)]
mod tests;
mod tokens;

pub use device::Cuda;
