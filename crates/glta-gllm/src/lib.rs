//! Graph-language logits matching (GLLM): computes scores of items from the hidden states of a
//! language model.
//!
//! A [`GllmHead`] implements the paper's equation 3: `logits = Z W_gᵀ + b_g` maps hidden states `Z:
//! (n, hidden)` to item logits `(n, items)`. The output is always an item of the catalogue, never
//! free text. A [`Decoder`] combines the logits of a user's slots into a ranked list.
//! [`GllmHead::loss`] and [`GllmHead::rank`] compute logits in blocks of items.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use glta_gllm::{Decoder, GllmHead, decode};
//!
//! let head = GllmHead::free(8, 5, true, 7, &Device::Cpu)?;
//! let hidden = Tensor::ones((2, 8), DType::F32, &Device::Cpu)?; // two slots
//! let logits = head.logits(&hidden, None)?;
//! assert_eq!(logits.dims(), [2, 5]);
//!
//! // Both slots have item 3 as target; item 0 was shown in the prompt.
//! let targets = [vec![3], vec![3]];
//! let shown = [vec![0], vec![0]];
//! let loss = head.loss(&hidden, None, None, &targets, &shown)?;
//! assert!(loss.to_scalar::<f32>()? > 0.0);
//!
//! let rows: Vec<Vec<f32>> = logits.to_vec2()?;
//! let ranked = decode(&rows, &[0], 3, Decoder::Parallel)?;
//! assert_eq!(ranked.len(), 3);
//! assert!(ranked.iter().all(|r| r.item != 0));
//! let lists = head.rank(&hidden, None, 2, &[[0]], 3, Decoder::Parallel)?;
//! assert_eq!(lists[0].len(), 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod blocks;
mod decode;
mod device;
mod error;
mod head;
mod lists;
mod loss;

pub use decode::{Decoder, decode};
pub use error::{Error, Result};
pub use glta_metrics::Ranked;
pub use head::{GllmHead, GllmWeights, GraphResidual};
pub use loss::{set_cross_entropy, weighted_cross_entropy};
