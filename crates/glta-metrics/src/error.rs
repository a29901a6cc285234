use thiserror::Error;

/// Errors of ranking and of evaluation.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is invalid.
    #[error("evaluation setting `{field}`: {problem}")]
    Config {
        /// Name of the field.
        field: &'static str,
        /// What is wrong and which values are valid.
        problem: &'static str,
    },
    /// Two inputs have different numbers of users, items or dimensions.
    #[error("{what}: expected {expected}, got {got}")]
    Shape {
        /// The quantity that was counted, such as `items in the truth`.
        what: &'static str,
        /// The required number.
        expected: usize,
        /// The actual number.
        got: usize,
    },
    /// A score is NaN, so the items cannot be ranked.
    #[error("the score of user {user} for item {item} is NaN; check the model's parameters")]
    NanScore {
        /// Id of the user.
        user: u32,
        /// Id of the item.
        item: u32,
    },
    /// The scorer returned an error.
    #[error("scoring {users} users from user {first} on failed")]
    Scorer {
        /// First user of the block that was scored.
        first: u32,
        /// Number of users in the block.
        users: usize,
        /// The error of the scorer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A ranking or a scorer's own list is invalid.
    #[error("the ranking of user {user} {problem}")]
    Ranking {
        /// Id of the user.
        user: u32,
        /// What is wrong with the ranking.
        problem: String,
    },
    /// No user has a held-out item, so the means are undefined.
    #[error("no user has a held-out item: the test part of the split is empty")]
    NoUsers,
    /// Two reports or series cannot be paired. Contains the reason.
    #[error("the reports cannot be paired: {0}")]
    Unpaired(String),
}

/// Result with this crate's [`Error`](enum@Error).
pub type Result<T> = std::result::Result<T, Error>;
