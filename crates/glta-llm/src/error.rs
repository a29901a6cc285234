use std::path::{Path, PathBuf};

/// What can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened, read or written.
    #[error("cannot read or write {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A JSON file is not valid JSON or lacks a required key.
    #[error("{}: {problem}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong and where.
        problem: String,
    },
    /// A configuration holds a value that makes no sense.
    #[error("configuration field `{field}`: {problem}")]
    Config {
        /// The field as it is spelled in the file.
        field: &'static str,
        /// What is wrong and what is allowed.
        problem: String,
    },
    /// The checkpoint asks for something that this crate does not do.
    #[error("unsupported {what}; supported: {supported}")]
    Unsupported {
        /// The option and its value.
        what: String,
        /// What is accepted in its place.
        supported: &'static str,
    },
    /// A safetensors file whose header or length is wrong.
    #[error("{}: not a valid safetensors file: {problem}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A tensor that the model needs is in no file.
    #[error("{}: tensor `{tensor}` is missing", path.display())]
    MissingTensor {
        /// The checkpoint's folder or the shard that should hold the tensor.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
    },
    /// A tensor that the model has no place for.
    #[error("{}: unexpected tensor `{tensor}`: {problem}", path.display())]
    UnexpectedTensor {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// Why it cannot be used.
        problem: String,
    },
    /// A tensor has the wrong shape, dtype or content.
    #[error("{}: tensor `{tensor}`: {problem}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// What is wrong, what was expected.
        problem: String,
    },
    /// An argument that does not fit the model.
    #[error("{0}")]
    Input(String),
    /// The tokenizer could not be read, or refused a text.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A checkpoint's chat template cannot be used.
    #[error("{}: chat template: {problem}", path.display())]
    Chat {
        /// The file that holds it.
        path: PathBuf,
        /// What is wrong, or the template's own words.
        problem: String,
    },
    /// A checkpoint could not be had from the hub.
    #[cfg(feature = "hub")]
    #[error("{what}: {problem}")]
    Hub {
        /// The URL, or the repository and its revision.
        what: String,
        /// What is wrong, what to do.
        problem: String,
    },
    /// A file of a sentence encoder that cannot be used.
    #[cfg(feature = "text-encoder")]
    #[error("sentence encoder: {}: {problem}", path.display())]
    Encoder {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The callback asked to stop.
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
