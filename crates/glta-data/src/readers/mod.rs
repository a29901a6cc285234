//! Readers of the publishers' raw files.
//!
//! Every reader takes a folder, most of them also the zip archive that the
//! publisher serves; a file may be gzipped whatever its name says. Files are
//! streamed. An error names the file and line, what was expected and what is
//! there.

mod amazon;
mod amazon_processed;
mod catalogue;
mod goodreads;
mod html;
mod ihp;
mod input;
mod json;
mod lines;
mod movielens;
mod pairs;
mod python;
mod ratings;

pub use amazon::{AmazonConfig, amazon};
pub use goodreads::{GoodreadsConfig, goodreads};
pub use ihp::ihp;
pub use movielens::movielens;
pub use pairs::{PairsConfig, PairsLayout, pairs, split_pairs};
