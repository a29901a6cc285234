//! Trains a recommender around a frozen language model, and opens trained recommenders.
//!
//! A [`Run`] consists of the stages of the paper ("Training Large Recommendation Models via
//! Graph-Language Token Alignment", WWW'25 companion):
//!
//! 1. **Graph pretraining**: LightGCN trains user and item nodes, which are then frozen.
//! 2. **Texts**: the language model writes a profile and a prediction for every user, from
//!    descriptions of training items.
//! 3. **Item-text alignment**: a linear projector maps item nodes to tokens. Given shuffled
//!    descriptions and the item tokens, the slots must name the items in the order of the tokens.
//! 4. **User-item alignment**: a second projector maps user nodes to tokens. The slots must name
//!    items that the prompt does not show.
//!
//! An item may also have a text vector that the frozen model computes. A [linear
//! model](glta_linear::LinearModel) in closed form may compute the logits, and the prompt path then
//! learns a correction.
//!
//! Only projectors, slots and the head are trained. Gradients flow through the frozen, quantised
//! layers. The open points of the paper are fields of [`Config`]. A [`Preset`] is a complete
//! configuration: the linear model alone (the default), the whole method, or one of two readings of
//! the paper. A finished run is opened as a [`Recommender`].
//!
//! ```
//! use glta_align::{Backbone, Config, Recommender, Run, RunData};
//! use glta_data::{Dataset, Interaction, Item, Split, SplitConfig, TextConfig};
//!
//! // Two tastes: even users have items 0..6, odd users items 6..12.
//! let (mut users, mut items) = (Vec::new(), Vec::new());
//! for n in 0..12 {
//!     users.push(format!("user {n}"));
//!     items.push(Item::titled(n.to_string(), format!("Item {n}")));
//! }
//! let mut interactions = Vec::new();
//! for (u, user) in users.iter().enumerate() {
//!     for i in 0..6 {
//!         if (u / 2 + i) % 6 != 0 {
//!             interactions.push((user.as_str(), items[i + 6 * (u % 2)].raw_id.clone()));
//!         }
//!     }
//! }
//! let interactions = interactions.iter().map(|(user, item)| Interaction::new(user, item));
//! let dataset = Dataset::from_interactions("tastes", interactions, items.clone())?;
//! let split = Split::new(&dataset, &SplitConfig::default())?;
//! let data = RunData::new(&dataset, &split, &TextConfig::default())?;
//!
//! // Without a language model here, so that the example needs no checkpoint.
//! let config = Config { backbone: Backbone::None, ..Config::default() };
//! let folder = tempfile::tempdir()?;
//! Run::create(folder.path(), data, config)?.fit(None)?;
//!
//! let recommender = Recommender::open(folder.path())?;
//! let best = recommender.recommend_for_items(&[0, 1], 3)?;
//! assert_eq!(best.len(), 3);
//! assert!(best.iter().all(|r| r.item > 1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod artifact;
mod checkpoint;
mod config;
mod data;
mod encoders;
mod error;
mod fields;
mod files;
mod grow;
mod growth;
mod hash;
mod item_encoder;
mod language;
mod lazy;
mod lists;
mod model;
mod nodes;
mod optimizer;
mod options;
mod progress;
mod prompt_states;
mod prompts;
mod ranks;
mod recommender;
mod report;
mod run;
mod sampling;
mod serving;
mod similar;
mod stages;
mod template;
mod text_recipe;
mod text_vectors;
mod texts;
#[cfg(test)]
#[path = "../tests/support/tiny_llm/mod.rs"]
mod tiny_llm;
mod trained;
mod trainer;

pub use config::{
    Backbone, Config, Density, ItemSlots, ItemStageConfig, ItemTextConfig, ModelConfig,
    NodeFeatures, Preset, Recompute, SlotPlacement, TargetLoss, TargetRule, TextsConfig,
    TrainConfig, UserNode, UserStageConfig,
};
pub use data::{ItemRecord, RunData};
pub use encoders::{Encoders, ItemVectors};
pub use error::{Error, Result};
pub use growth::GrowthEncoders;
pub use item_encoder::ItemEncoder;
pub use language::LanguageModel;
pub use options::{ListOptions, Person};
pub use progress::Event;
pub use recommender::{Recommendation, Recommender};
pub use report::{FitReport, Mix};
pub use run::Run;
pub use serving::{finish_for_serving, fit_for_serving};
pub use similar::Similarity;
pub use template::Templates;
pub use text_recipe::{TextRecipe, TextVectorConfig};
pub use texts::{UserTexts, read_texts};
pub use trainer::StageHistory;
