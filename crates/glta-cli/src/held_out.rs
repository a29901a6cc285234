//! The part of the data that chooses settings.

use glta_data::{Dataset, Split, SplitConfig, SplitMethod};

use crate::Result;

/// A tenth of everybody's interactions: the latest where there are times, else a random part.
pub(crate) fn held_out(dataset: &Dataset, seed: u64) -> Result<Split> {
    let method = match dataset.timestamps() {
        Some(_) => SplitMethod::Temporal,
        None => SplitMethod::RandomPerUser,
    };
    let config =
        SplitConfig { method, test_ratio: 0.1, valid_ratio: 0.0, seed, ..SplitConfig::default() };
    let split = Split::new(dataset, &config)?;
    // What is held out only chooses settings.
    Ok(Split { valid: split.test.clone(), ..split })
}
