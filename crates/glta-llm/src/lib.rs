//! A frozen LLaMA on the CPU or a GPU, with GPTQ weights that stay packed: forward from
//! tokens or embeddings, **backward to the embeddings**, generation, and a
//! quantiser.
//!
//! Training through a frozen language model (soft prompts, projectors of graph
//! or image embeddings) needs the gradient at its *input* only. This crate
//! gives exactly that: [`Llama::hidden_states`] is one differentiable
//! operation of candle whose derivative runs through the quantised layers,
//! `dX = dY · dequant(W)`, and never forms a weight gradient.
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
//! * **Formats**: GPTQ with 2, 3, 4 or 8 bits, any group size, act-order
//!   (`desc_act`), symmetric or not, format v1 and v2, single layers of other bits; AWQ
//!   (`gemm`, 4 bits); plain f16, bf16 and f32. LLaMA, Mistral, Qwen2 and Qwen3
//!   architectures with grouped-query attention, attention windows, biases, tied
//!   embeddings, rope scaling linear, dynamic, llama3 and yarn. Anything else is refused by
//!   name. The guide `docs/gptq.md` describes the format on disk and which file counts where
//!   several state a fact.
//! * **Batches** are right-padded; padding is not computed. A row's result does
//!   not depend on its neighbours, in any bit.
//! * **Memory**: [`ForwardOptions::recompute`] keeps one hidden state per token
//!   and layer; [`Llama::prefix`] shares the start of all prompts.
//! * **Generation**: [`Llama::generate`], batched, with a key-value cache;
//!   [`Llama::extend`], [`Llama::extend_batch`] and [`KvCache`] for loops of one's own.
//! * **Text**: [`Tokenizer`] gives the ids of transformers, also of the pieces of a prompt;
//!   [`ChatTemplate`] is a checkpoint's own chat form.
//! * **Quantiser**: with the feature `quantize`, `quantize` makes a GPTQ checkpoint of any LLaMA.
//! * **Hub**: with the feature `hub`, `Llama::from_hub("owner/name", "main")`
//!   downloads into the cache of the Hugging Face hub's own tools.
//! * **Sentence encoders**: with the feature `text-encoder`, `SentenceEncoder` gives the
//!   text vectors of a BERT such as MiniLM. It takes about a minute more to compile.
//! * **GPU**: with the feature `cuda`, on the device that [`Llama::load`] is given;
//!   the page `docs/cuda.md` says how. Bits as promised here are the CPU's.
//! * **Threads**: rayon's current pool; AVX-512, AVX2 or plain Rust by what the
//!   processor has.
//! * **Precision**: f32, or on request [`Precision::Bf16`] for the products with
//!   quantised weights, faster where the processor multiplies bf16.

// The documentation names the feature that an item needs.
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
mod stack;
#[cfg(feature = "text-encoder")]
mod text_encoder;
mod tokenizer;

pub use cache::KvCache;
/// Of the public functions' arguments and results.
pub use candle_core::{Device, Tensor};
pub use chat::ChatTemplate;
pub use config::{
    CheckpointFormat, LlamaConfig, ModuleRule, QuantizeConfig, RopeScaling, SlidingWindow,
};
pub use error::{Error, Result};
pub use generate::GenerateEvent;
/// Of [`LlamaOptions`], and what [`Llama::load_on`] takes.
pub use glta_kernels::{Backend, Precision, SimdLevel};
pub use model::{ForwardOptions, Llama, Prefix};
pub use options::{GenerateOptions, LlamaOptions};
#[cfg(feature = "quantize")]
pub use quantize::{QuantizeEvent, QuantizeOptions, quantize, quantize_with};
#[cfg(feature = "text-encoder")]
pub use text_encoder::SentenceEncoder;
pub use tokenizer::Tokenizer;
