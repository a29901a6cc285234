//! Reads the interactions and makes their split.

use std::path::Path;

use glta_data::readers::{pairs, split_pairs};
use glta_data::{Dataset, Split, SplitConfig};

use super::args::LightgcnArgs;
use crate::Result;

/// The interactions, with their split if it was published.
pub(super) struct Data {
    pub(super) dataset: Dataset,
    published: Option<Split>,
}

impl Data {
    pub(super) fn read(args: &LightgcnArgs) -> Result<Self> {
        let config = args.table.config()?;
        let train = std::path::absolute(&args.train)?;
        let folder = train.parent().and_then(Path::file_name).unwrap_or_default();
        Ok(match &args.test {
            Some(test) => {
                let (dataset, split) =
                    split_pairs(folder.to_string_lossy(), &args.train, test, &config)?;
                Self { dataset, published: Some(split) }
            }
            None => Self { dataset: pairs(&args.train, &config)?, published: None },
        })
    }

    /// Returns the split of a seed. It is the published one, with validation items from its
    /// training part, or a random one.
    pub(super) fn split(&self, args: &LightgcnArgs, seed: u64) -> Result<Split> {
        let valid_ratio = args.valid_ratio;
        Ok(match &self.published {
            Some(split) => {
                Split::with_validation(&split.train, split.test.clone(), valid_ratio, seed)?
            }
            None => {
                let test_ratio = args.test_ratio;
                let config =
                    SplitConfig { seed, test_ratio, valid_ratio, ..SplitConfig::default() };
                Split::new(&self.dataset, &config)?
            }
        })
    }
}
