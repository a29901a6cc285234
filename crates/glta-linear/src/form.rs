use std::fmt;

use serde::{Deserialize, Serialize};

/// How the weights of a linear model are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Solver {
    /// [`Form::Dense`]
    Dense,
    /// [`Form::Local`]
    Local,
}

/// A solver with its sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "solver", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Form {
    /// The inverse of the whole Gram matrix: `12 · items²` bytes while it is fitted,
    /// `4 · items²` afterwards, `items³` operations.
    Dense,
    /// For every item, the system over its strongest sources alone, solved exactly:
    /// `8 · sources · items` bytes, about 0.1 ms an item.
    Local {
        /// Most sources of an item.
        sources: usize,
        /// Eigenvectors of the Gram matrix that are taken out first, which dense data need;
        /// 0 for none.
        rank: usize,
    },
}

impl Form {
    /// Sizes that no model has.
    pub(crate) fn check(self) -> std::result::Result<(), String> {
        match self {
            Self::Local { sources, rank } if sources > 1_000_000 || rank > 4096 => {
                Err(format!("{sources} sources and rank {rank} are not below 1,000,000 and 4,096"))
            }
            _ => Ok(()),
        }
    }

    /// Which solver it is.
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
