//! A frozen LLaMA on a CPU or a GPU, with GPTQ weights that stay packed: forward from tokens or
//! embeddings, **backward to the embeddings**, generation, and a quantiser.
//!
//! Training through a frozen language model (soft prompts, projectors of graph or image embeddings)
//! needs only the gradient at the *input* of the model. [`Llama::hidden_states`] is one
//! differentiable operation of candle. Its derivative runs through the quantised layers, `dX = dY ·
//! dequant(W)`, and never forms a gradient of the weights.
//!
//! ```
//! use candle_core::{Device, Var};
//! use glta_llm::{ForwardOptions, Llama, LlamaConfig};
//!
//! // A small random model; `Llama::load(dir, ..)` reads a checkpoint.
//! let config = LlamaConfig {
//!     vocab_size: 100,
//!     hidden_size: 32,
//!     intermediate_size: 64,
//!     num_hidden_layers: 2,
//!     num_attention_heads: 4,
//!     num_key_value_heads: 2,
//!     head_dim: 8,
//!     ..LlamaConfig::default()
//! };
//! let llm = Llama::random(&config, 1, &Device::Cpu)?;
//!
//! // Instruction text, computed once for all rows.
//! let prefix = llm.prefix(&[1, 15, 27])?;
//! // Two rows of soft tokens, padded to 4; the second has 3.
//! let soft = Var::randn(0f32, llm.embedding_rms(), (2, 4, 32), &Device::Cpu)?;
//! let options = ForwardOptions { prefix: Some(&prefix), recompute: true };
//! let hidden = llm.hidden_states(&soft, &[4, 3], &options)?; // (2, 4, 32)
//!
//! let gradient = hidden.sqr()?.sum_all()?.backward()?;
//! assert_eq!(gradient.get(&soft).map(|g| g.dims().to_vec()), Some(vec![2, 4, 32]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! * **Formats**: GPTQ with 2, 3, 4 or 8 bits, any group size, act-order (`desc_act`), symmetric or
//!   not, format v1 and v2, with different bit widths for individual layers; AWQ (`gemm`, 4 bits);
//!   plain f16, bf16 and f32. LLaMA, Mistral, Qwen2 and Qwen3 architectures with grouped-query
//!   attention, attention windows, biases, tied embeddings, and rope scaling `linear`, `dynamic`,
//!   `llama3` and `yarn`. All other formats are rejected with an error that names the option. The
//!   guide `docs/gptq.md` describes the format on disk and the precedence of the configuration
//!   files.
//! * **Batches** are right-padded, and padding is not computed. The result of a row does not
//!   depend on the other rows: it is bit-identical in any batch.
//! * **Memory**: [`ForwardOptions::recompute`] keeps one hidden state per token and layer.
//!   [`Llama::prefix`] computes the common start of all prompts once.
//! * **Generation**: [`Llama::generate`], batched, with a key-value cache. [`Llama::extend`],
//!   [`Llama::extend_batch`] and [`KvCache`] are for custom loops.
//! * **Text**: [`Tokenizer`] returns the same ids as transformers, also if the parts of a prompt
//!   are encoded separately. [`ChatTemplate`] renders the checkpoint's chat template.
//! * **Quantiser** (feature `quantize`): `quantize` creates a GPTQ checkpoint of any supported
//!   model.
//! * **Hub** (feature `hub`): `Llama::from_hub("owner/name", "main")` downloads into the cache of
//!   the Hugging Face Hub's own tools.
//! * **Sentence encoders** (feature `text-encoder`): `SentenceEncoder` computes text vectors with a
//!   BERT such as MiniLM. The feature adds about a minute of compilation.
//! * **GPU** (feature `cuda`): pass a CUDA device to [`Llama::load`]. See `docs/cuda.md`. The
//!   guarantee of bit-identical results on this page applies to the CPU only.
//! * **Threads**: all work runs in rayon's current pool. The kernels use AVX-512, AVX2 or portable
//!   Rust, depending on the processor.
//! * **Precision**: f32. [`Precision::Bf16`] computes the products with quantised weights in bf16,
//!   which is faster on processors that multiply bf16.

// docs.rs shows the feature that an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(missing_docs)]

mod awq;
mod cache;
mod chat;
mod checkpoint;
mod config;
mod damage;
mod erased;
mod error;
mod generate;
mod gptq_tensors;
#[cfg(feature = "hub")]
pub mod hub;
mod json;
mod layer;
mod load;
mod model;
mod network;
mod options;
#[cfg(feature = "quantize")]
mod quantize;
mod rotary;
mod sample;
mod selected;
mod stack;
#[cfg(feature = "text-encoder")]
mod text_encoder;
mod tokenizer;

pub use cache::KvCache;
/// Types of candle in public arguments and results.
pub use candle_core::{Device, Tensor};
pub use chat::ChatTemplate;
pub use config::{
    CheckpointFormat, LlamaConfig, ModuleRule, QuantizeConfig, RopeScaling, SlidingWindow,
};
pub use error::{Error, Result};
pub use generate::GenerateEvent;
/// Types that [`LlamaOptions`] and [`Llama::load_on`] use.
pub use glta_kernels::{Backend, Precision, SimdLevel};
pub use model::{ForwardOptions, Llama, Prefix};
pub use options::{GenerateOptions, LlamaOptions};
#[cfg(feature = "quantize")]
pub use quantize::{QuantizeEvent, QuantizeOptions, quantize, quantize_with};
#[cfg(feature = "text-encoder")]
pub use text_encoder::SentenceEncoder;
pub use tokenizer::Tokenizer;
