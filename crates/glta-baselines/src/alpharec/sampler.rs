use glta_core::stream;
use glta_data::Interactions;
use rand::Rng;

/// The interactions of a training step, and the negatives that all of them share.
pub(super) struct Batch {
    pub(super) users: Vec<u32>,
    pub(super) positives: Vec<u32>,
    pub(super) negatives: Vec<u32>,
    /// For each interaction, the positions in `negatives` of items of its user. The loss ignores
    /// them.
    pub(super) left_out: Vec<Vec<u32>>,
}

impl Batch {
    pub(super) fn new(
        train: &Interactions,
        (users, positives): (Vec<u32>, Vec<u32>),
        negatives: Vec<u32>,
    ) -> Self {
        let mut places = vec![None; train.n_items()];
        (0u32..).zip(&negatives).for_each(|(at, &item)| places[item as usize] = Some(at));
        let of = |&user: &u32| {
            train.items(user).iter().filter_map(|&item| places[item as usize]).collect()
        };
        let left_out = users.iter().map(of).collect();
        Self { users, positives, negatives, left_out }
    }
}

/// A sampler of batches, which draws interactions and negatives uniformly. A batch depends only on
/// the seed and its number.
pub(super) struct Sampler<'a> {
    train: &'a Interactions,
    edges: Vec<(u32, u32)>,
    seed: u64,
    negatives: usize,
}

impl<'a> Sampler<'a> {
    pub(super) fn new(train: &'a Interactions, seed: u64, negatives: usize) -> Self {
        let negatives = negatives.min(train.n_items());
        Self { train, edges: train.iter().collect(), seed, negatives }
    }

    pub(super) fn len(&self) -> usize {
        self.edges.len()
    }

    pub(super) fn draw(&self, number: u64, size: usize) -> Batch {
        let mut rng = stream(self.seed, "AlphaRec batches", &[number]);
        let drawn = (0..size).map(|_| self.edges[rng.random_range(0..self.edges.len())]).unzip();
        let items = rand::seq::index::sample(&mut rng, self.train.n_items(), self.negatives);
        let negatives = items.into_iter().map(|item| item as u32).collect();
        Batch::new(self.train, drawn, negatives)
    }
}
