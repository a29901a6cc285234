use std::path::{Path, PathBuf};

/// Errors of loading and running language models and text encoders.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened, read or written.
    #[error("cannot read or write {}", path.display())]
    Io {
        /// Path of the file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A JSON file is not valid JSON or lacks a required key.
    #[error("{}: {problem}", path.display())]
    Json {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong, and where in the file.
        problem: String,
    },
    /// A configuration has an invalid value.
    #[error("configuration field `{field}`: {problem}")]
    Config {
        /// Name of the field in the file.
        field: &'static str,
        /// What is wrong and which values are valid.
        problem: String,
    },
    /// The checkpoint requires a feature that this crate does not support.
    #[error("unsupported {what}; supported: {supported}")]
    Unsupported {
        /// Name of the option, and its value.
        what: String,
        /// The supported values.
        supported: &'static str,
    },
    /// A safetensors file has an invalid header or length.
    #[error("{}: not a valid safetensors file: {problem}", path.display())]
    Safetensors {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong with the file.
        problem: String,
    },
    /// No file contains a tensor that the model needs.
    #[error("{}: tensor `{tensor}` is missing", path.display())]
    MissingTensor {
        /// Folder of the checkpoint, or the shard that should contain the tensor.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
    },
    /// The checkpoint contains a tensor that the model does not use.
    #[error("{}: unexpected tensor `{tensor}`: {problem}", path.display())]
    UnexpectedTensor {
        /// Path of the file.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// The reason why the tensor cannot be used.
        problem: String,
    },
    /// A tensor has the wrong shape, dtype or content.
    #[error("{}: tensor `{tensor}`: {problem}", path.display())]
    Tensor {
        /// Path of the file.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// What is wrong and which value is expected.
        problem: String,
    },
    /// An argument does not fit the model. Contains the argument and the reason.
    #[error("{0}")]
    Input(String),
    /// The tokenizer could not be read, or rejected a text. Contains the reason.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The chat template of a checkpoint cannot be used.
    #[error("{}: chat template: {problem}", path.display())]
    Chat {
        /// Path of the file that contains the template.
        path: PathBuf,
        /// What is wrong with the template, or the message that the template raised.
        problem: String,
    },
    /// A checkpoint could not be downloaded from the hub.
    #[cfg(feature = "hub")]
    #[error("{what}: {problem}")]
    Hub {
        /// The URL, or the repository and its revision.
        what: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A file of a sentence encoder cannot be used.
    #[cfg(feature = "text-encoder")]
    #[error("sentence encoder: {}: {problem}", path.display())]
    Encoder {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong with the file.
        problem: String,
    },
    /// The progress callback cancelled the operation.
    #[error("cancelled")]
    Cancelled,
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl From<glta_core::Cancelled> for Error {
    fn from(_: glta_core::Cancelled) -> Self {
        Self::Cancelled
    }
}

impl From<glta_kernels::Error> for Error {
    fn from(error: glta_kernels::Error) -> Self {
        match error {
            glta_kernels::Error::Unsupported { what, supported } => {
                Self::Unsupported { what, supported }
            }
            glta_kernels::Error::Candle(error) => Self::Candle(error),
            other => Self::Input(other.to_string()),
        }
    }
}

impl Error {
    pub(crate) fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn json(path: impl AsRef<Path>, problem: impl ToString) -> Self {
        Self::Json { path: path.as_ref().to_path_buf(), problem: problem.to_string() }
    }

    #[cfg(feature = "hub")]
    pub(crate) fn hub(what: impl Into<String>, problem: impl ToString) -> Self {
        Self::Hub { what: what.into(), problem: problem.to_string() }
    }

    #[cfg(feature = "text-encoder")]
    pub(crate) fn encoder(path: &Path, problem: impl std::fmt::Display) -> Self {
        Self::Encoder { path: path.to_owned(), problem: problem.to_string() }
    }

    pub(crate) fn tensor(path: impl AsRef<Path>, tensor: &str, problem: impl ToString) -> Self {
        Self::Tensor {
            path: path.as_ref().to_path_buf(),
            tensor: tensor.to_string(),
            problem: problem.to_string(),
        }
    }
}
