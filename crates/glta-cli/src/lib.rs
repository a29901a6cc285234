//! The library half of the program `glta`: flags that programs share, progress on a
//! terminal, downloads, and each subcommand as a function that an example can call.

#![allow(clippy::print_stdout, clippy::print_stderr)]

pub mod device;
pub mod fetch;
pub mod interrupt;
mod outcome;
pub mod progress;
pub mod ranks;

pub use outcome::{Result, exit, exit_on_ranks, show_error};
