//! Draws random triples of a user, a positive item and a negative item.

use glta_core::stream;
use glta_data::Interactions;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::config::{LightGcnConfig, PositiveSampling};
use crate::{Error, Result};

/// Number of triples per random stream. It is fixed, so that the samples do not depend on the
/// number of threads.
const STREAM: usize = 4096;

/// Triples of a user, a positive and a negative item, with the caller's ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) users: Vec<u32>,
    pub(crate) positives: Vec<u32>,
    pub(crate) negatives: Vec<u32>,
}

impl Batch {
    pub(crate) fn len(&self) -> usize {
        self.users.len()
    }
}

pub(crate) struct Sampler<'a> {
    train: &'a Interactions,
    seed: u64,
    by_interaction: bool,
    /// Users with at least one item and at least one possible negative item.
    users: Vec<u32>,
}

impl<'a> Sampler<'a> {
    pub(crate) fn new(train: &'a Interactions, config: &LightGcnConfig) -> Result<Self> {
        let usable = |&u: &u32| (1..train.n_items()).contains(&train.items(u).len());
        let users: Vec<u32> = (0..train.n_users() as u32).filter(usable).collect();
        if users.is_empty() {
            return Err(Error::NothingToTrain);
        }
        Ok(Self {
            train,
            seed: config.seed,
            by_interaction: config.positives == PositiveSampling::Interaction,
            users,
        })
    }

    /// Draws the triples with the numbers `first..first + len` of the run.
    pub(crate) fn fill(&self, batch: &mut Batch, first: usize, len: usize) {
        batch.users.resize(len, 0);
        batch.positives.resize(len, 0);
        batch.negatives.resize(len, 0);
        // Derive each stream from its position in the run, so that batches of one run never share a
        // stream.
        let streams = batch
            .users
            .par_chunks_mut(STREAM)
            .zip(batch.positives.par_chunks_mut(STREAM))
            .zip(batch.negatives.par_chunks_mut(STREAM));
        streams.enumerate().for_each(|(s, ((users, positives), negatives))| {
            let mut rng = stream(self.seed, "triples", &[(first + s * STREAM) as u64]);
            for ((user, positive), negative) in users.iter_mut().zip(positives).zip(negatives) {
                (*user, *positive) = self.positive(&mut rng);
                *negative = self.negative(*user, &mut rng);
            }
        });
    }

    fn positive(&self, rng: &mut ChaCha8Rng) -> (u32, u32) {
        if self.by_interaction {
            let offsets = self.train.offsets();
            loop {
                let edge = rng.random_range(0..self.train.len());
                let user = offsets.partition_point(|&o| o <= edge) - 1;
                // A user with every item has no negative item, and another user is drawn.
                if offsets[user + 1] - offsets[user] < self.train.n_items() {
                    return (user as u32, self.train.column_indices()[edge]);
                }
            }
        }
        let user = self.users[rng.random_range(0..self.users.len())];
        let items = self.train.items(user);
        (user, items[rng.random_range(0..items.len())])
    }

    fn negative(&self, user: u32, rng: &mut ChaCha8Rng) -> u32 {
        let items = self.train.items(user);
        // Take the `draw`-th item that the user does not have. This needs no rejection, so users
        // with almost all items cost no more than others.
        let draw = rng.random_range(0..(self.train.n_items() - items.len()) as u32);
        let (mut low, mut high) = (0, items.len());
        while low < high {
            let middle = (low + high) / 2;
            if items[middle] - middle as u32 <= draw {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        draw + low as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn train() -> Interactions {
        // User 0 lacks only item 3, user 1 has one item, user 2 has all items, user 3 has none.
        let mut pairs = vec![(0, 0), (0, 1), (0, 2), (0, 4), (1, 2)];
        pairs.extend((0..5).map(|i| (2, i)));
        Interactions::from_pairs(4, 5, pairs).unwrap()
    }

    fn draw(change: impl Fn(&mut LightGcnConfig)) -> Batch {
        let mut config = LightGcnConfig::default();
        change(&mut config);
        let train = train();
        let sampler = Sampler::new(&train, &config).unwrap();
        let mut batch = Batch::default();
        sampler.fill(&mut batch, 0, 10_000);
        for t in 0..batch.len() {
            assert!(train.contains(batch.users[t], batch.positives[t]));
            let negative = batch.negatives[t];
            assert!(negative < 5 && !train.contains(batch.users[t], negative));
        }
        batch
    }

    fn share(batch: &Batch, user: u32) -> f64 {
        let of_user = batch.users.iter().filter(|&&u| u == user).count();
        of_user as f64 / batch.len() as f64
    }

    #[test]
    fn uniform_user_and_negatives() {
        let batch = draw(|_| ());
        assert!((share(&batch, 0) - 0.5).abs() < 0.03);
        // The four items that user 1 does not have are equally frequent.
        for item in [0, 1, 3, 4] {
            let pairs = batch.users.iter().zip(&batch.negatives);
            let n = pairs.filter(|&(&u, &j)| u == 1 && j == item).count();
            assert!((n as f64 / 5000.0 - 0.25).abs() < 0.03, "item {item}: {n}");
        }
    }

    #[test]
    fn by_interaction() {
        let batch = draw(|c| c.positives = PositiveSampling::Interaction);
        assert!((share(&batch, 0) - 0.8).abs() < 0.03);
    }

    #[test]
    fn nothing_to_train_is_an_error() {
        let full = Interactions::from_pairs(1, 1, [(0, 0)]).unwrap();
        assert!(Sampler::new(&full, &LightGcnConfig::default()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn negatives_are_exactly_the_missing_items(
            seen in proptest::collection::btree_set(0u32..20, 1..20)
        ) {
            let pairs: Vec<_> = seen.iter().map(|&i| (0, i)).collect();
            let train = Interactions::from_pairs(1, 20, pairs).unwrap();
            let sampler = Sampler::new(&train, &LightGcnConfig::default()).unwrap();
            let mut batch = Batch::default();
            sampler.fill(&mut batch, 0, 2000);
            let drawn: std::collections::BTreeSet<u32> = batch.negatives.into_iter().collect();
            let missing: std::collections::BTreeSet<u32> =
                (0..20).filter(|i| !seen.contains(i)).collect();
            proptest::prop_assert_eq!(drawn, missing);
        }
    }
}
