use std::fmt;

use serde::{Deserialize, Serialize};

/// Size of a data set, one row of the paper's Table 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Stats {
    /// Name of the data set.
    pub name: String,
    /// Number of users.
    pub users: usize,
    /// Number of items.
    pub items: usize,
    /// Number of distinct (user, item) pairs.
    pub interactions: usize,
    /// Share of all user-item pairs that are interactions, `interactions / (users · items)`.
    pub density: f64,
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} users, {} items, {} interactions, density {:.3} %",
            self.name,
            self.users,
            self.items,
            self.interactions,
            100.0 * self.density
        )
    }
}
