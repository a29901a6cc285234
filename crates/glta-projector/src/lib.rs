//! Graph nodes as input tokens of a language model.
//!
//! A [`Projector`] is the linear layer of the paper's equations 1 and 2. It maps node embeddings
//! `(n, d)` to *soft tokens* `(n, hidden)`: input embeddings that take the place of ordinary tokens
//! in a prompt. [`splice`] combines soft and ordinary tokens into a batch of prompts.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use glta_projector::{Piece, Projector, splice};
//!
//! // Three nodes of dimension 4 become tokens of a model with hidden size 8.
//! let nodes = Tensor::ones((3, 4), candle_core::DType::F32, &Device::Cpu)?;
//! let projector = Projector::new(4, 8, 0.1, 7, &Device::Cpu)?;
//! let soft = projector.forward(&nodes)?;
//! assert_eq!(soft.dims(), [3, 8]);
//!
//! // A toy embedding table in place of the language model's.
//! let table = Tensor::zeros((100, 8), candle_core::DType::F32, &Device::Cpu)?;
//! let rows = [
//!     vec![Piece::Tokens(vec![1, 2, 3]), Piece::Soft(0)],
//!     vec![Piece::Tokens(vec![4]), Piece::Soft(2), Piece::Soft(1)],
//! ];
//! let embed = |ids: &[u32]| table.index_select(&Tensor::new(ids, &Device::Cpu)?, 0);
//! let batch = splice(&rows, &soft, embed)?;
//! assert_eq!(batch.embeds.dims(), [2, 4, 8]);
//! assert_eq!(batch.lengths, [4, 3]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod init;
mod projector;
mod splice;

pub use error::{Error, Result};
pub use init::{normal_parameter, normal_var};
pub use projector::{Parameters, Projector};
pub use splice::{Piece, SoftBatch, splice, splice_with};
