//! Frozen LLaMA with GPTQ (or plain) weights on the CPU: forward, backward to
//! the input embeddings, generation.
#![deny(missing_docs)]
#[cfg(target_endian = "big")]
compile_error!("weights are little-endian on disk and used as they are");

mod checkpoint;
mod config;
mod error;
mod generate;
mod kernel;
mod layer;
mod linear;
mod load;
mod model;
mod ops;
mod pool;
mod quantize;
mod rope;
mod sample;
mod simd;
mod stack;
mod tokenizer;
mod weights;

pub use config::{CheckpointFormat, LlamaConfig, QuantizeConfig, RopeScaling};
pub use error::{Error, Result};
pub use generate::{GenerateEvent, GenerateOptions};
pub use model::{ForwardOptions, Llama, LlamaOptions, Prefix};
pub use quantize::{QuantizeEvent, QuantizeOptions, quantize};
pub use simd::SimdLevel;
pub use tokenizer::Tokenizer;
