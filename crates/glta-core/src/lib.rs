//! Utilities that several GLTA crates share. This crate depends on no other GLTA crate and on no
//! tensor library.
//!
//! - [`with_causes`] formats an error and its causes as one message.
//! - [`write_whole`] replaces a file atomically. [`lock_folder`] locks a folder against other
//!   processes.
//! - [`stream`] derives a random generator from a seed, a purpose and a position in the work.
//!   [`pick`] samples without replacement.
//! - [`near_names`] suggests known names for a misspelt one.
//! - [`settings`] edits a configuration by field paths.
//! - [`Grid`] and [`search`] choose settings on validation data.
//! - [`TextEncoder`] turns texts into vectors.
//! - [`Progress`] receives the events of long-running work. [`report`] sends an event and returns
//!   [`Cancelled`] if the receiver cancels the work.
//!
//! ```
//! use std::ops::ControlFlow;
//!
//! use glta_core::{Cancelled, Progress, Silent, report};
//!
//! /// Counts to `n` and reports each number.
//! fn count(n: u32, progress: &mut dyn Progress<u32>) -> Result<u32, Cancelled> {
//!     (1..=n).try_for_each(|i| report(progress, &i))?;
//!     Ok(n)
//! }
//!
//! assert_eq!(count(5, &mut Silent), Ok(5));
//! let until_three = &mut |i: &u32| match i {
//!     3 => ControlFlow::Break(()),
//!     _ => ControlFlow::Continue(()),
//! };
//! assert_eq!(count(5, until_three), Err(Cancelled));
//! ```

mod encoder;
mod error;
mod lock;
mod names;
mod progress;
mod random;
mod search;
pub mod settings;
mod write;

pub use encoder::TextEncoder;
pub use error::{Error, Result, with_causes};
pub use lock::lock_folder;
pub use names::near_names;
pub use progress::{Cancelled, Progress, Silent, report};
pub use random::{pick, stream};
pub use search::{Grid, Search, Trial, search};
pub use write::{UNFINISHED, write_whole};
