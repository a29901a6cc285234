use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

/// Errors that prevent the start of the service or end it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A field of the configuration has an invalid value.
    #[error("configuration: {field}: {problem}")]
    Config {
        /// Name of the field, such as `max_k`.
        field: &'static str,
        /// What is wrong and which values are valid.
        problem: String,
    },
    /// A file of the model cannot be read.
    #[error("cannot read {path}")]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The model needs a language model, but the configuration names none.
    #[error(
        "{model} was trained with a language model: name the folder of that checkpoint (`llm`)"
    )]
    NoLanguageModel {
        /// Folder of the model.
        model: PathBuf,
    },
    /// The journal cannot be used.
    #[error("the journal {path}: {problem}")]
    Journal {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The model or its language model cannot be loaded.
    #[error(transparent)]
    Align(#[from] glta_align::Error),
    /// A thread of the service cannot be started.
    #[error("cannot start the thread `{name}`")]
    Thread {
        /// Name of the thread.
        name: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The address is in use, not permitted, or does not belong to this machine.
    #[error("cannot listen at {address}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// Result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;
