use std::fmt;

use serde::{Deserialize, Serialize};

/// The method that computes the weights of a linear model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Solver {
    /// The solver of [`Form::Dense`].
    Dense,
    /// The solver of [`Form::Local`].
    Local,
}

/// The form of a linear model: a solver with its sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "solver", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Form {
    /// Inverts the whole Gram matrix. This takes `12 · items²` bytes during the fit, `4 · items²`
    /// bytes afterwards, and `items³` operations.
    Dense,
    /// Solves one linear system per item exactly, over the item's strongest sources. This takes `8
    /// · sources · items` bytes and about 0.1 ms per item.
    Local {
        /// Maximum number of sources per item.
        sources: usize,
        /// Number of eigenvectors of the Gram matrix in a low-rank part, which improves the model
        /// on dense data; 0 leaves out the low-rank part.
        rank: usize,
    },
}

impl Form {
    /// Returns an error message if the number of sources exceeds 1,000,000 or the rank exceeds
    /// 4,096.
    pub(crate) fn check(self) -> std::result::Result<(), String> {
        match self {
            Self::Local { sources, rank } if sources > 1_000_000 || rank > 4096 => Err(format!(
                "sources must be below 1,000,000 and rank below 4,096, got {sources} and {rank}"
            )),
            _ => Ok(()),
        }
    }

    /// Returns the solver of this form.
    pub fn solver(self) -> Solver {
        match self {
            Self::Dense => Solver::Dense,
            Self::Local { .. } => Solver::Local,
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dense => write!(f, "dense"),
            Self::Local { sources, rank: 0 } => write!(f, "local, {sources} sources"),
            Self::Local { sources, rank } => write!(f, "local, {sources} sources, rank {rank}"),
        }
    }
}
