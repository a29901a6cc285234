//! The library of the program `glta`: shared flags, progress on a terminal, downloads, and each
//! subcommand as a function that an example can call.
//!
//! A subcommand is a module with its flags (`XArgs`, for [`clap`]) and a function `run(&args)`,
//! which returns the exit code.

// docs.rs shows the feature that an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod ask;
pub mod datasets;
pub mod demo;
pub mod device;
pub mod evaluate;
pub mod experiment;
pub mod fetch;
pub mod files;
pub mod fit;
pub mod flags;
pub mod gptq;
mod held_out;
pub mod interrupt;
#[cfg(feature = "serve")]
mod journal;
pub mod lightgcn;
pub mod logging;
mod outcome;
mod output;
pub mod progress;
pub mod ranks;
pub mod reproduce;
mod result;
#[cfg(feature = "serve")]
pub mod serve;
pub mod tables;

pub use outcome::{exit, exit_on_ranks, show_error};
pub use result::Result;
