use crate::{Error, Interactions, Result, Split};
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// A split some of whose items no model has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColdSplit {
    /// The split without any training or validation interaction of cold items;
    /// the test part is untouched.
    pub split: Split,
    /// The cold items, ascending.
    pub cold_items: Vec<u32>,
}

impl Split {
    /// Turns a random `fraction` of the items into cold ones: all their training
    /// and validation interactions are thrown away, those for testing stay.
    ///
    /// Only items with a training or validation interaction are drawn, rounded
    /// to the nearest count. Users whose items were all drawn are left without
    /// training interactions.
    ///
    /// # Errors
    /// [`Error::Config`] when `fraction` is not in `[0, 1)`.
    pub fn cold_items(&self, fraction: f64, seed: u64) -> Result<ColdSplit> {
        if !(0.0..1.0).contains(&fraction) {
            return Err(Error::Config {
                field: "fraction",
                problem: format!("{fraction} is not in [0, 1)"),
            });
        }
        let mut known: Vec<u32> = (0..)
            .zip(self.train.item_degrees().iter().zip(self.valid.item_degrees()))
            .filter(|(_, (train, valid))| **train + valid > 0)
            .map(|(item, _)| item)
            .collect();
        let amount = (known.len() as f64 * fraction).round_ties_even() as usize;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (drawn, _) = known.partial_shuffle(&mut rng, amount);
        let mut cold_items = drawn.to_vec();
        cold_items.sort_unstable();
        let without = |matrix: &Interactions| {
            matrix.filter(|_, item| cold_items.binary_search(&item).is_err())
        };
        Ok(ColdSplit {
            split: Self {
                train: without(&self.train),
                valid: without(&self.valid),
                test: self.test.clone(),
            },
            cold_items,
        })
    }
}

impl ColdSplit {
    /// The test interactions with cold items.
    pub fn cold_test(&self) -> Interactions {
        self.test_where(true)
    }

    /// The test interactions with all other items.
    pub fn warm_test(&self) -> Interactions {
        self.test_where(false)
    }

    fn test_where(&self, cold: bool) -> Interactions {
        self.split.test.filter(|_, item| self.cold_items.binary_search(&item).is_ok() == cold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dataset, Item, SplitConfig};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cold_items_are_never_seen(
            pairs in prop::collection::vec((0u32..12, 0u32..20), 0..150),
            fraction in 0.0f64..0.99,
            seed in any::<u64>(),
        ) {
            let items = (0..20).map(|i| Item::new(i.to_string())).collect();
            let data = Dataset::from_dense("d", 12, items, pairs).unwrap();
            let split = Split::new(&data, &SplitConfig::default()).unwrap();
            let cold = split.cold_items(fraction, seed).unwrap();
            let degrees = cold.split.train_and_valid().unwrap().item_degrees();
            prop_assert!(cold.cold_items.iter().all(|&i| degrees[i as usize] == 0));
            prop_assert!(cold.cold_items.is_sorted());
            let before = split.train_and_valid().unwrap().item_degrees();
            let known = before.iter().filter(|&&d| d > 0).count();
            prop_assert_eq!(
                cold.cold_items.len(),
                (known as f64 * fraction).round_ties_even() as usize
            );
            for (item, (&now, &then)) in degrees.iter().zip(&before).enumerate() {
                let is_cold = cold.cold_items.contains(&(item as u32));
                prop_assert_eq!(now, if is_cold { 0 } else { then });
            }
            prop_assert_eq!(cold.cold_test().union(&cold.warm_test()).unwrap(), split.test.clone());
            prop_assert_eq!(cold.cold_test().len() + cold.warm_test().len(), split.test.len());
            prop_assert_eq!(split.cold_items(fraction, seed).unwrap(), cold);
        }
    }

    #[test]
    fn bad_fractions() {
        let empty = Interactions::empty(1, 1).unwrap();
        let split = Split { train: empty.clone(), valid: empty.clone(), test: empty };
        assert!(split.cold_items(1.0, 0).is_err());
        assert!(split.cold_items(f64::NAN, 0).is_err());
        assert!(split.cold_items(0.0, 0).unwrap().cold_items.is_empty());
    }
}
