use thiserror::Error;

/// What can go wrong while scores are ranked and measured.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration cannot be used.
    #[error("evaluation setting `{field}`: {problem}")]
    Config {
        /// Name of the field.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Two inputs speak of different numbers of users, items or dimensions.
    #[error("{what}: expected {expected}, got {got}")]
    Shape {
        /// What was counted.
        what: &'static str,
        /// The count that was needed.
        expected: usize,
        /// The count that was given.
        got: usize,
    },
    /// A score is not a number, so no ranking exists.
    #[error("the score of user {user} for item {item} is NaN; check the model's parameters")]
    NanScore {
        /// The user.
        user: u32,
        /// The item.
        item: u32,
    },
    /// The scorer failed.
    #[error("scoring {users} users from user {first} on failed")]
    Scorer {
        /// First user of the block.
        first: u32,
        /// How many users were asked for.
        users: usize,
        /// The scorer's own error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A given ranking cannot be measured.
    #[error("the ranking of user {user} {problem}")]
    Ranking {
        /// The user.
        user: u32,
        /// What is wrong with it.
        problem: String,
    },
    /// No user has an item to find, so every mean would be empty.
    #[error("no user has a held-out item; the split left the truth matrix empty")]
    NoUsers,
    /// Two reports cannot be compared user by user.
    #[error("the reports cannot be paired: {0}")]
    Unpaired(String),
}

/// Result with this crate's [`Error`](enum@Error).
pub type Result<T> = std::result::Result<T, Error>;
