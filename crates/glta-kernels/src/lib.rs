//! Packed GPTQ weights, and the kernels that compute the layers of a frozen LLaMA with them:
//! forward, and backward to the inputs of the layers.
//!
//! A model is generic over the trait [`Backend`], which also determines the types of its weights,
//! tables and caches. [`Host`] computes on the CPU.
//!
//! ```
//! use glta_kernels::{Arena, Backend, Host, Linear, Matrix, Precision};
//! use candle_core::{Device, Tensor};
//! use std::sync::Arc;
//!
//! let host = Host::new(None, Precision::F32)?;
//! // A weight with 2 outputs and 3 inputs; `Matrix::quantized` reads GPTQ tensors.
//! let weight = Matrix::dense_f32(&Arena::default(), 2, 3, &[1., 0., 2., 0., 1., 0.])?;
//! let layer = host.linear(vec![(Arc::new(weight), Some(vec![10., 20.]))])?;
//! let x = Tensor::new(&[[1f32, 2., 3.]], &Device::Cpu)?;
//! assert_eq!(layer.forward(&x, None)?.to_vec2::<f32>()?, [[17., 22.]]);
//! let dy = Tensor::new(&[[1f32, 1.]], &Device::Cpu)?;
//! assert_eq!(layer.backward(&dy)?.to_vec2::<f32>()?, [[1., 1., 2.]]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! * **CPU**: AVX-512, AVX2 or plain Rust, depending on the processor ([`SimdLevel`]), on rayon's
//!   current pool. A row's result is bit-identical for any other rows in the batch.
//! * **GPU**: [`Cuda`] with the feature `cuda`. Without the feature, creating a `Cuda` backend
//!   returns an error, so callers need no `cfg`. The page `docs/cuda.md` describes the design.
//! * **Emulator**: with the feature `emulator`, the CUDA kernels run on the host, for tests.

// The documentation names the feature that an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(missing_docs)]
#[cfg(target_endian = "big")]
compile_error!("weights are little-endian on disk and used as they are");

mod arguments;
mod backend;
mod cpu;
mod cuda;
mod error;
mod heads;
mod host;
mod panel;
mod pool;
mod precision;
mod sequences;
mod simd;
mod weights;

pub use backend::{Backend, Keys, Linear, Next, Norm};
pub use cuda::Cuda;
pub use error::{Error, Result};
pub use heads::Heads;
pub use host::Host;
pub use precision::Precision;
pub use sequences::Sequences;
pub use simd::SimdLevel;
pub use weights::{Arena, GptqTensors, Matrix, ScalesRef, Weight};
