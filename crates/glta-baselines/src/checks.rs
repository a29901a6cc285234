//! Checks of settings that all baselines share.

use crate::{Error, Result};

/// Returns an error if one of the sizes is 0.
pub(crate) fn at_least_one(system: &'static str, sizes: &[(&'static str, usize)]) -> Result<()> {
    match sizes.iter().find(|(_, size)| *size == 0) {
        Some(&(field, _)) => {
            Err(Error::Config { system, field, problem: "must be at least 1".into() })
        }
        None => Ok(()),
    }
}

/// Returns an error if one of the numbers is not positive or not finite.
pub(crate) fn positive(system: &'static str, values: &[(&'static str, f64)]) -> Result<()> {
    match values.iter().find(|(_, value)| !(*value > 0.0 && value.is_finite())) {
        Some(&(field, value)) => {
            let problem = format!("{value} is not a positive number");
            Err(Error::Config { system, field, problem })
        }
        None => Ok(()),
    }
}
