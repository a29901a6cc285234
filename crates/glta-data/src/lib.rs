//! Data sets for recommendation: from raw files to interactions, texts and splits.
//!
//! - [`Interactions`] contains the items of each user as compressed sparse rows. It is the input of
//!   metrics and graph models.
//! - [`Dataset`] contains interactions with raw ids, item texts and, if the source has them,
//!   ratings and times. A reader creates it from files, and [`Dataset::from_interactions`] from
//!   values in memory. [`Dataset::k_core`], [`Dataset::min_rating`] and [`Dataset::retain_items`]
//!   filter it.
//! - [`TextConfig`] defines from which fields the text of an item is composed.
//! - [`ShopConfig`] generates a shop, for examples without a download.
//! - [`Split`] divides the interactions into a training, a validation and a test part, as
//!   [`SplitConfig`] defines.
#![cfg_attr(
    feature = "readers",
    doc = "- [`readers`]: the publishers' raw files, from a folder or zip, plain or gzipped."
)]
//!
//! ```
//! use glta_data::{Dataset, Interaction, Item, Split, SplitConfig, TextConfig};
//!
//! let interactions = [("ann", "1"), ("ann", "2"), ("ann", "3"), ("ben", "2"), ("ben", "3")]
//!     .map(|(user, item)| Interaction::new(user, item));
//! let items = vec![
//!     Item::titled("1", "Postino, Il (1994)"),
//!     Item::titled("2", "Matrix, The (1999)"),
//!     Item::titled("3", "Fargo (1996)"),
//! ];
//! let data = Dataset::from_interactions("films", interactions, items)?.k_core(2, 1);
//! assert_eq!(data.stats().to_string(),
//!     "films: 2 users, 3 items, 5 interactions, density 83.333 %");
//! assert_eq!(data.texts(&TextConfig::default())?[1], "The Matrix (1999)");
//!
//! let split = Split::new(&data, &SplitConfig::default())?;
//! assert_eq!(split.test.len(), 2);
//! # Ok::<(), glta_data::Error>(())
//! ```

// docs.rs shows the feature that an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod columns;
mod dataset;
mod error;
mod filter;
mod ids;
mod interactions;
mod item;
#[cfg(feature = "readers")]
pub mod readers;
mod report;
mod shop;
mod split;
mod stats;
mod text;

pub use dataset::{Dataset, Interaction};
pub use error::{Error, Result};
pub use interactions::Interactions;
pub use item::Item;
pub use report::{FileReport, FilterReport, Note, Report};
pub use shop::ShopConfig;
pub use split::{Split, SplitConfig, SplitMethod};
pub use stats::Stats;
pub use text::TextConfig;
