//! GLTA: recommendation from interactions and item texts, with a frozen language model.
//!
//! This crate re-exports the other crates. Each of them can be used alone:
//!
//! | module | crate | what it does |
//! |---|---|---|
//! | [`data`] | `glta-data` | reads data sets as interactions and texts, makes splits |
//! | [`metrics`] | `glta-metrics` | ranking metrics, full-ranking evaluation |
//! | [`graph`] | `glta-graph` | trains LightGCN on the CPU |
//! | [`linear`] | `glta-linear` | linear item models in closed form: EASE, text-kNN, their combination |
//! | [`llm`] | `glta-llm` | frozen LLaMA with GPTQ weights, forward and backward pass |
//! | [`kernels`] | `glta-kernels` | packed GPTQ weights, kernels for the layers of a LLaMA |
//! | [`projector`] | `glta-projector` | node projectors, soft tokens in prompts |
//! | [`gllm`] | `glta-gllm` | item logits, losses, slot decoding |
//! | [`align`] | `glta-align` | the method: stages, runs, the [`Recommender`] |
//! | [`baselines`] | `glta-baselines` | baselines: contrastive graph models, AlphaRec |
//! | [`comm`] | `glta-comm` | communication between ranks |
//! | [`shared`] | `glta-core` | shared utilities: progress, search, atomic file writes |
//!
//! [`Recommender`]: align::Recommender
//!
//! ```
//! use glta::prelude::*;
//!
//! let config = Config::preset(Preset::Paper, Density::Dense);
//! assert_eq!(config.model.slots, 10);
//! # Ok::<(), Error>(())
//! ```

// docs.rs shows the feature that an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub use glta_align as align;
pub use glta_baselines as baselines;
pub use glta_comm as comm;
pub use glta_data as data;
pub use glta_gllm as gllm;
pub use glta_graph as graph;
pub use glta_kernels as kernels;
pub use glta_linear as linear;
pub use glta_llm as llm;
pub use glta_metrics as metrics;
pub use glta_projector as projector;
// The name is not `core`, because `use glta::*` would shadow the standard library's `core`.
pub use glta_core as shared;

/// The types that most programs need to train or use a recommender.
pub mod prelude {
    pub use glta_align::{
        Config, Density, Error, Event, LanguageModel, Preset, Recommendation, Recommender, Run,
        RunData,
    };
    pub use glta_data::{Dataset, Interaction, Interactions, Item, Split, SplitConfig, TextConfig};
    pub use glta_metrics::{EvaluationConfig, Metric, evaluate, evaluate_rankings};
}

/// The code blocks of the documentation pages and of the README, compiled and run as doctests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../pages/README.md")]
    struct Readme;
    #[doc = include_str!("../pages/your-data.md")]
    struct YourData;
    #[doc = include_str!("../pages/embedding.md")]
    struct Embedding;
    #[doc = include_str!("../pages/files.md")]
    struct Files;
    #[doc = include_str!("../README.md")]
    struct Crate;
}
