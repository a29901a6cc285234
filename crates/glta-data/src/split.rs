use glta_core::stream;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::{Dataset, Error, Interactions, Result};

/// A rule that selects each user's held-out items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SplitMethod {
    /// The held-out items are a random share of each user's items.
    RandomPerUser,
    /// One test item per user and, with a validation ratio above 0, one validation item. They are
    /// the last two items in time if times are known, and random items otherwise. The ratios have
    /// no other effect.
    LeaveOneOut,
    /// The test part is the latest share of each user's items, and the validation part the latest
    /// share of the remaining items. This rule needs times. At equal times, the item with the
    /// higher id counts as later.
    Temporal,
}

/// Settings of a split: its rule, its ratios and its seed.
///
/// Of a user's `n` items, `test = round(n · test_ratio)` are held out for testing. Of the other `m
/// = n − test` items, `valid = round(m · valid_ratio)` are held out for validation. Halves are
/// rounded to the nearest even number. To include short histories, a ratio above 0 holds out at
/// least one test item if a user has two items, and at least one validation item if three remain
/// after testing. A user always keeps a training item. On MovieLens 100K, the default settings give
/// 71,981 training, 8,019 validation and 20,000 test interactions.
///
/// ```
/// use glta_data::{SplitConfig, SplitMethod};
///
/// let config = SplitConfig { method: SplitMethod::Temporal, cold_ratio: 0.1, ..Default::default() };
/// assert!(config.validate().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SplitConfig {
    /// Rule that selects the held-out items. Default [`SplitMethod::RandomPerUser`].
    pub method: SplitMethod,
    /// Share of a user's items in the test part, in `[0, 1)`. Default 0.2.
    pub test_ratio: f64,
    /// Share of the remaining items in the validation part, in `[0, 1)`. Default 0.1.
    pub valid_ratio: f64,
    /// Share of cold items, in `[0, 1)`. Of the `n` items with interactions, `round(n ·
    /// cold_ratio)` are drawn at random. All interactions of cold items are test interactions. The
    /// other interactions are split as if the cold items did not exist. A user whose items are all
    /// cold has no training item. Default 0.
    pub cold_ratio: f64,
    /// Seed of the random choices. Default 2024.
    pub seed: u64,
}

impl Default for SplitConfig {
    fn default() -> Self {
        Self {
            method: SplitMethod::RandomPerUser,
            test_ratio: 0.2,
            valid_ratio: 0.1,
            cold_ratio: 0.0,
            seed: 2024,
        }
    }
}

impl SplitConfig {
    /// Checks that all ratios are valid.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if a ratio is outside `[0, 1)`.
    pub fn validate(&self) -> Result<()> {
        check_ratio("test_ratio", self.test_ratio)?;
        check_ratio("valid_ratio", self.valid_ratio)?;
        check_ratio("cold_ratio", self.cold_ratio)
    }
}

fn check_ratio(field: &'static str, ratio: f64) -> Result<()> {
    if (0.0..1.0).contains(&ratio) {
        return Ok(());
    }
    Err(Error::Config { field, problem: format!("{ratio} is not in [0, 1)") })
}

/// Three disjoint parts of the interactions of a data set, with the same ids.
///
/// ```
/// use glta_data::{Dataset, Item, Split, SplitConfig};
///
/// let items = (0..10).map(|i| Item::new(i.to_string())).collect();
/// let data = Dataset::from_dense("d", 1, items, (0..10).map(|i| (0, i)))?;
/// let split = Split::new(&data, &SplitConfig::default())?;
/// assert_eq!(split.test.len(), 2);
/// assert_eq!(split.valid.len(), 1);
/// assert_eq!(split.train.len(), 7);
/// # Ok::<(), glta_data::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Training part, on which models are fitted.
    pub train: Interactions,
    /// Validation part, on which settings are chosen.
    pub valid: Interactions,
    /// Test part, on which results are measured.
    pub test: Interactions,
    /// Items that represent new items, in ascending order. They have no training interactions.
    /// [`SplitConfig::cold_ratio`] and [`with_new_items`](Self::with_new_items) select them.
    pub cold_items: Vec<u32>,
}

/// Part of the split to which an interaction belongs.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Train,
    Valid,
    Test,
}

impl Split {
    /// Splits the interactions of `dataset`.
    ///
    /// The choice for a user depends only on the seed, the user's id and the user's items. It is
    /// the same for any number of threads and any order of users.
    ///
    /// # Errors
    /// Returns an error if the settings are invalid, if a filter removed all interactions, or if
    /// the split is temporal and the data set has no times.
    pub fn new(dataset: &Dataset, config: &SplitConfig) -> Result<Self> {
        config.validate()?;
        if let Err(error @ Error::Emptied { .. }) = dataset.require_interactions() {
            return Err(error);
        }
        let interactions = dataset.interactions();
        let times = match (config.method, dataset.timestamps()) {
            (SplitMethod::RandomPerUser, _) => None,
            (SplitMethod::Temporal, None) => {
                return Err(Error::MissingColumn {
                    dataset: dataset.name().to_owned(),
                    column: "timestamps",
                    needed_by: "a temporal split",
                });
            }
            (_, times) => times,
        };
        let cold_items = draw_items(interactions, config.cold_ratio, config.seed, "cold items");
        let items = interactions.column_indices();
        let cold = |k: usize| cold_items.binary_search(&items[k]).is_ok();
        let part = |k: usize| if cold(k) { Part::Test } else { Part::Train };
        let mut parts: Vec<Part> = (0..interactions.len()).map(part).collect();
        let mut order: Vec<usize> = Vec::new();
        for user in 0..interactions.n_users() {
            let row = interactions.offsets()[user]..interactions.offsets()[user + 1];
            // Held-out rows come first in `order`: the test rows, then the validation rows.
            order.clear();
            order.extend(row.filter(|&k| parts[k] == Part::Train));
            let (test, valid) = held_out(order.len(), config);
            match times {
                Some(times) => order.sort_by_key(|&k| std::cmp::Reverse((times[k], k))),
                None => {
                    shuffle(&mut order, test + valid, config.seed, user);
                }
            }
            for (n, &k) in order.iter().take(test + valid).enumerate() {
                parts[k] = if n < test { Part::Test } else { Part::Valid };
            }
        }
        Ok(Self { cold_items, ..Self::from_parts(interactions, &parts) })
    }

    /// Creates a split from a published training and test matrix. The share `valid_ratio` of each
    /// user's training items is moved to the validation part at random, rounded as [`SplitConfig`]
    /// describes. With a ratio of 0, the validation part is empty.
    ///
    /// # Errors
    /// Returns an error if the ratio is outside `[0, 1)` or the matrices have different sizes.
    pub fn with_validation(
        train: &Interactions,
        test: Interactions,
        valid_ratio: f64,
        seed: u64,
    ) -> Result<Self> {
        check_ratio("valid_ratio", valid_ratio)?;
        for (kind, len, other) in
            [("user", train.n_users(), test.n_users()), ("item", train.n_items(), test.n_items())]
        {
            if len != other {
                return Err(Error::Config {
                    field: "test",
                    problem: format!("has {other} {kind}s, but the training matrix has {len}"),
                });
            }
        }
        let mut parts = vec![Part::Train; train.len()];
        let mut order: Vec<usize> = Vec::new();
        for user in 0..train.n_users() {
            order.clear();
            order.extend(train.offsets()[user]..train.offsets()[user + 1]);
            let valid = n_valid(order.len(), valid_ratio);
            shuffle(&mut order, valid, seed, user);
            for &k in order.iter().take(valid) {
                parts[k] = Part::Valid;
            }
        }
        let split = Self::from_parts(train, &parts);
        Ok(Self { test, ..split })
    }

    fn from_parts(interactions: &Interactions, parts: &[Part]) -> Self {
        let part = |wanted: Part| {
            let mut k = 0;
            interactions.filter(|_, _| {
                k += 1;
                parts[k - 1] == wanted
            })
        };
        let (train, valid, test) = (part(Part::Train), part(Part::Valid), part(Part::Test));
        Self { train, valid, test, cold_items: Vec::new() }
    }

    /// Returns the split with new items in its validation part. Of the `n` items with training
    /// interactions, `round(n · ratio)` are drawn at random, and all their training interactions
    /// become validation interactions. Choose settings on this split if new items will be added to
    /// the catalogue. The final model can then be fitted on the whole training part.
    /// [`cold_items`](Self::cold_items) of the result are the drawn items.
    ///
    /// # Errors
    /// Returns an error if the ratio is outside `[0, 1)`, or if the parts have different sizes,
    /// which is possible only if a program has set the fields itself.
    pub fn with_new_items(&self, ratio: f64, seed: u64) -> Result<Self> {
        let (train, moved) = self.train.split_off_items(ratio, seed)?;
        let degrees = moved.item_degrees();
        let cold_items = (0..).zip(degrees).filter(|(_, d)| *d > 0).map(|(item, _)| item).collect();
        Ok(Self { train, valid: self.valid.union(&moved)?, test: self.test.clone(), cold_items })
    }

    /// Returns the union of the training and the validation part, which are the known interactions
    /// in a test.
    ///
    /// # Errors
    /// Returns an error if the parts have different sizes, which is possible only if a program has
    /// set the fields itself.
    pub fn train_and_valid(&self) -> Result<Interactions> {
        self.train.union(&self.valid)
    }
}

impl Interactions {
    /// Draws `round(n · ratio)` of the `n` items that have interactions. Returns the interactions
    /// of the other items, and those of the drawn items.
    ///
    /// # Errors
    /// Returns an error if the ratio is outside `[0, 1)`.
    pub fn split_off_items(&self, ratio: f64, seed: u64) -> Result<(Self, Self)> {
        check_ratio("ratio of new items", ratio)?;
        let drawn = draw_items(self, ratio, seed, "new items");
        let is_drawn = |item: u32| drawn.binary_search(&item).is_ok();
        Ok((self.filter(|_, item| !is_drawn(item)), self.filter(|_, item| is_drawn(item))))
    }
}

/// Draws a random share of the items that have interactions, and returns them in ascending order.
fn draw_items(interactions: &Interactions, ratio: f64, seed: u64, purpose: &str) -> Vec<u32> {
    let degrees = interactions.item_degrees();
    let mut known: Vec<u32> =
        (0..).zip(&degrees).filter(|(_, d)| **d > 0).map(|(item, _)| item).collect();
    let amount = round(known.len(), ratio);
    let mut drawn = known.partial_shuffle(&mut stream(seed, purpose, &[]), amount).0.to_vec();
    drawn.sort_unstable();
    drawn
}

/// Returns the numbers of test and of validation items of a user with `n` items.
fn held_out(n: usize, config: &SplitConfig) -> (usize, usize) {
    if config.method == SplitMethod::LeaveOneOut {
        let test = usize::from(n >= 2);
        let valid = usize::from(n >= 3 && config.valid_ratio > 0.0);
        return (test, valid);
    }
    let test = if config.test_ratio > 0.0 && n >= 2 {
        round(n, config.test_ratio).clamp(1, n - 1)
    } else {
        0
    };
    (test, n_valid(n - test, config.valid_ratio))
}

/// Returns the number of validation items out of the `m` items that are not in the test part.
fn n_valid(m: usize, ratio: f64) -> usize {
    if ratio > 0.0 && m >= 3 {
        round(m, ratio).clamp(1, m - 1)
    } else {
        round(m, ratio).min(m.saturating_sub(1))
    }
}

fn round(n: usize, ratio: f64) -> usize {
    (n as f64 * ratio).round_ties_even() as usize
}

/// Moves a uniform sample of `amount` values to the front, in random order. Each user has a
/// separate random stream.
fn shuffle(values: &mut [usize], amount: usize, seed: u64, user: usize) {
    let amount = amount.min(values.len());
    // rand moves the sample to the end of the slice.
    values.partial_shuffle(&mut stream(seed, "split", &[user as u64]), amount);
    values.rotate_right(amount);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Interaction, Item};

    fn dataset(lengths: &[usize]) -> Dataset {
        let n_items = lengths.iter().copied().max().unwrap_or(0);
        let pairs = lengths
            .iter()
            .enumerate()
            .flat_map(|(u, &n)| (0..n as u32).map(move |i| (u as u32, i)));
        let items = (0..n_items).map(|i| Item::new(i.to_string())).collect();
        Dataset::from_dense("d", lengths.len(), items, pairs).unwrap()
    }

    proptest! {
        #[test]
        fn a_split_is_a_partition_and_every_user_keeps_an_item(
            lengths in prop::collection::vec(0usize..40, 1..20),
            test_ratio in 0.0f64..0.999,
            valid_ratio in 0.0f64..0.999,
            leave_one_out in any::<bool>(),
            seed in any::<u64>(),
        ) {
            let data = dataset(&lengths);
            let method = if leave_one_out { SplitMethod::LeaveOneOut } else { SplitMethod::RandomPerUser };
            let config =
                SplitConfig { method, test_ratio, valid_ratio, seed, ..SplitConfig::default() };
            let split = Split::new(&data, &config).unwrap();
            let all = split.train_and_valid().unwrap().union(&split.test).unwrap();
            prop_assert_eq!(&all, data.interactions());
            prop_assert_eq!(
                split.train.len() + split.valid.len() + split.test.len(),
                data.interactions().len()
            );
            for (u, &n) in lengths.iter().enumerate() {
                let u = u as u32;
                prop_assert_eq!(split.train.items(u).is_empty(), n == 0);
                let (test, valid) = held_out(n, &config);
                prop_assert_eq!(split.test.items(u).len(), test);
                prop_assert_eq!(split.valid.items(u).len(), valid);
                prop_assert!(n < 2 || test_ratio == 0.0 || test >= 1);
            }
            prop_assert_eq!(Split::new(&data, &config).unwrap(), split);
        }

        #[test]
        fn cold_items_are_only_tested_on(
            pairs in prop::collection::vec((0u32..12, 0u32..20), 1..150),
            cold_ratio in 0.0f64..0.999,
            seed in any::<u64>(),
        ) {
            let items = (0..20).map(|i| Item::new(i.to_string())).collect();
            let data = Dataset::from_dense("d", 12, items, pairs).unwrap();
            let config = SplitConfig { cold_ratio, seed, ..SplitConfig::default() };
            let split = Split::new(&data, &config).unwrap();
            let all = data.interactions();
            let seen = split.train_and_valid().unwrap();
            prop_assert_eq!(&seen.union(&split.test).unwrap(), all);
            prop_assert_eq!(seen.len() + split.test.len(), all.len());
            let degrees = all.item_degrees();
            let known = degrees.iter().filter(|&&d| d > 0).count();
            prop_assert_eq!(split.cold_items.len(), round(known, cold_ratio));
            prop_assert!(split.cold_items.windows(2).all(|pair| pair[0] < pair[1]));
            for &item in &split.cold_items {
                prop_assert_eq!(seen.item_degrees()[item as usize], 0);
                prop_assert_eq!(
                    split.test.item_degrees()[item as usize], degrees[item as usize]
                );
                prop_assert!(degrees[item as usize] > 0);
            }
            let is_cold = |item: &u32| split.cold_items.contains(item);
            for user in 0..12 {
                let warm = all.items(user).iter().filter(|i| !is_cold(i)).count();
                let (test, valid) = held_out(warm, &config);
                let tested = split.test.items(user).iter().filter(|i| !is_cold(i)).count();
                prop_assert_eq!((tested, split.valid.items(user).len()), (test, valid));
                prop_assert_eq!(split.train.items(user).is_empty(), warm == 0);
            }
            prop_assert_eq!(Split::new(&data, &config).unwrap(), split);
        }

        #[test]
        fn new_items_move_to_validation(
            pairs in prop::collection::vec((0u32..12, 0u32..20), 1..150),
            ratio in 0.0f64..0.999,
            seed in any::<u64>(),
        ) {
            let items = (0..20).map(|i| Item::new(i.to_string())).collect();
            let data = Dataset::from_dense("d", 12, items, pairs).unwrap();
            let split = Split::new(&data, &SplitConfig::default()).unwrap();
            let moved = split.with_new_items(ratio, seed).unwrap();
            prop_assert_eq!(&moved.test, &split.test);
            prop_assert_eq!(moved.train_and_valid().unwrap(), split.train_and_valid().unwrap());
            let before = split.train.item_degrees();
            let had = before.iter().filter(|&&d| d > 0).count();
            prop_assert_eq!(moved.cold_items.len(), round(had, ratio));
            for (item, (&before, &now)) in
                before.iter().zip(&moved.train.item_degrees()).enumerate()
            {
                let new = moved.cold_items.contains(&(item as u32));
                prop_assert_eq!(now, if new { 0 } else { before });
                prop_assert!(!new || before > 0);
            }
        }

        #[test]
        fn validation_items_come_from_the_published_training_part(
            lengths in prop::collection::vec(0usize..40, 1..20),
            ratio in 0.0f64..0.999,
        ) {
            let data = dataset(&lengths);
            let test = Interactions::empty(data.n_users(), data.n_items()).unwrap();
            let split = Split::with_validation(data.interactions(), test, ratio, 1).unwrap();
            prop_assert_eq!(&split.train_and_valid().unwrap(), data.interactions());
            for u in 0..lengths.len() as u32 {
                prop_assert!(split.train.items(u).len() >= lengths[u as usize].min(1));
            }
        }
    }

    #[test]
    fn a_configuration_without_cold_ratio_is_valid() {
        let old = r#"{"method":"random_per_user","test_ratio":0.2,"valid_ratio":0.1,"seed":2024}"#;
        let config: SplitConfig = serde_json::from_str(old).unwrap();
        assert_eq!(config, SplitConfig::default());
    }

    #[test]
    fn rounding() {
        let counts = |n| held_out(n, &SplitConfig::default());
        assert_eq!(counts(0), (0, 0));
        assert_eq!(counts(1), (0, 0));
        assert_eq!(counts(2), (1, 0));
        assert_eq!(counts(3), (1, 0));
        assert_eq!(counts(4), (1, 1));
        assert_eq!(counts(5), (1, 1));
        assert_eq!(counts(20), (4, 2));
        assert_eq!(counts(100), (20, 8));
    }

    #[test]
    fn every_item_is_held_out_equally_often() {
        let data = dataset(&[10; 4000]);
        let split = Split::new(&data, &SplitConfig::default()).unwrap();
        for degree in split.test.item_degrees() {
            // The degree is Binomial(4000, 0.2) distributed, with a standard deviation of 25.
            assert!((675..925).contains(&degree), "{degree}");
        }
        for degree in split.valid.item_degrees() {
            assert!((300..500).contains(&degree), "{degree}");
        }
        assert_ne!(split.test.items(0), split.test.items(1));
        let other = SplitConfig { seed: 2025, ..SplitConfig::default() };
        assert_ne!(Split::new(&data, &other).unwrap(), split);
    }

    #[test]
    fn later_items_are_held_out() {
        let names: Vec<String> = (0..10).map(|i| i.to_string()).collect();
        let interactions = names.iter().enumerate().map(|(i, name)| Interaction {
            user: "u",
            item: name,
            rating: None,
            // The first item is the latest.
            timestamp: Some(100 - i as i64),
        });
        let data = Dataset::from_interactions("d", interactions, vec![]).unwrap();
        let mut config = SplitConfig { method: SplitMethod::Temporal, ..SplitConfig::default() };
        let split = Split::new(&data, &config).unwrap();
        assert_eq!(split.test.items(0), [0, 1]);
        assert_eq!(split.valid.items(0), [2]);
        config.method = SplitMethod::LeaveOneOut;
        let split = Split::new(&data, &config).unwrap();
        assert_eq!(split.test.items(0), [0]);
        assert_eq!(split.valid.items(0), [1]);
    }

    #[test]
    fn invalid_split_settings() {
        let data = dataset(&[3]);
        let temporal = SplitConfig { method: SplitMethod::Temporal, ..SplitConfig::default() };
        assert!(Split::new(&data, &temporal).is_err());
        for ratio in [-0.1, 1.0, f64::NAN] {
            let config = SplitConfig { test_ratio: ratio, ..SplitConfig::default() };
            assert!(Split::new(&data, &config).is_err());
            let config = SplitConfig { cold_ratio: ratio, ..SplitConfig::default() };
            let message = Split::new(&data, &config).unwrap_err().to_string();
            assert!(message.contains("cold_ratio"), "{message}");
            let test = Interactions::empty(1, 3).unwrap();
            assert!(Split::with_validation(data.interactions(), test, ratio, 1).is_err());
            let split = Split::new(&data, &SplitConfig::default()).unwrap();
            let message = split.with_new_items(ratio, 1).unwrap_err().to_string();
            assert!(message.contains("new items"), "{message}");
        }
        let small = Interactions::empty(1, 2).unwrap();
        assert!(Split::with_validation(data.interactions(), small, 0.1, 1).is_err());
    }
}
