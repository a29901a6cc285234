//! Readers of raw files.
//!
//! - [`movielens`], [`amazon`], [`goodreads`] and [`ihp`] read the publishers' files, in a folder
//!   or the zip archive. They ignore files that macOS and Windows add to archives. If a folder
//!   contains only one folder, they read that one.
//! - [`pairs`], [`split_pairs`] and [`tables`] read interactions and items in tables of any kind,
//!   such as CSV, JSON lines, RecBole's atomic files and LightGCN's lists.
//! - [`Table`] reads the rows of such a table, one by one.
//!
//! A file may be gzipped, whatever its name is. Files are streamed. An error names the file and the
//! line, the expected form and the actual content. [`tracing`] events and
//! [`Dataset::report`](crate::Dataset::report) say which format was recognised, and what was
//! omitted, merged or missing.

mod amazon;
mod amazon_files;
mod amazon_processed;
mod catalogue;
mod encoding;
mod goodreads;
mod goodreads_csv;
mod html;
mod ihp;
mod input;
mod items;
mod json;
mod layout;
mod lines;
mod movielens;
mod pairs;
mod pairs_config;
mod python;
mod table;

pub use amazon::amazon;
pub use amazon_files::AmazonConfig;
pub use goodreads::{GoodreadsConfig, goodreads};
pub use ihp::ihp;
pub use items::{ItemsConfig, tables};
pub use movielens::{MovieLensConfig, movielens, movielens_with};
pub use pairs::{pairs, split_pairs};
pub use pairs_config::{MissingIds, PairsConfig, PairsLayout};
pub use table::{Column, Counts, Row, Separator, Table, TableConfig};
