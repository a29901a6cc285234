use glta_linear::Popularity;

use crate::error::BoxError;
use crate::seed::Seed;
use crate::system::{Fitted, System};

pub(crate) struct PopularitySystem;

impl System for PopularitySystem {
    fn name(&self) -> &str {
        "Popularity"
    }

    fn fit(&self, seed: &mut Seed<'_>) -> Result<Fitted, BoxError> {
        Ok(Fitted::new(Popularity::fit(&seed.split().train)))
    }
}
