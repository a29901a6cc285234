//! Holds out the part of the data on which settings are chosen.

use glta_data::{Dataset, Split, SplitConfig, SplitMethod};

use crate::Result;

/// Holds out a tenth of each user's interactions as the validation part: the latest ones if there
/// are times, and random ones otherwise.
pub(crate) fn held_out(dataset: &Dataset, seed: u64) -> Result<Split> {
    let method = match dataset.timestamps() {
        Some(_) => SplitMethod::Temporal,
        None => SplitMethod::RandomPerUser,
    };
    let config =
        SplitConfig { method, test_ratio: 0.1, valid_ratio: 0.0, seed, ..SplitConfig::default() };
    let split = Split::new(dataset, &config)?;
    // The held-out part is only used to choose settings.
    Ok(Split { valid: split.test.clone(), ..split })
}
