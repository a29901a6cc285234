use glta_core::stream;
use glta_data::Interactions;
use rand::Rng;

/// A batch of triples: a user, an item of the user, and an item that is not among the user's items.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) users: Vec<u32>,
    pub(super) positives: Vec<u32>,
    pub(super) negatives: Vec<u32>,
    /// Ids of the masked nodes. The id of a user is its dense id, and that of an item is its dense
    /// id plus the number of users.
    pub(super) masked: Vec<u32>,
}

/// A sampler of batches, which draws interactions uniformly, each with a uniform negative. A batch
/// depends only on the seed and its number.
pub(super) struct Sampler<'a> {
    train: &'a Interactions,
    /// Interactions that can be drawn: those of users that lack at least one item.
    edges: Vec<(u32, u32)>,
    seed: u64,
    /// Fraction of the nodes that a batch masks.
    mask: f64,
}

impl<'a> Sampler<'a> {
    pub(super) fn new(train: &'a Interactions, seed: u64, mask: f64) -> Self {
        let edges = train.iter().filter(|&(u, _)| train.items(u).len() < train.n_items());
        Self { train, edges: edges.collect(), seed, mask }
    }

    /// Returns the number of interactions that can be drawn.
    pub(super) fn len(&self) -> usize {
        self.edges.len()
    }

    pub(super) fn draw(&self, number: u64, size: usize) -> Batch {
        let mut rng = stream(self.seed, "triples", &[number]);
        let mut batch = Batch::default();
        for _ in 0..size {
            let (user, item) = self.edges[rng.random_range(0..self.edges.len())];
            let negative = loop {
                let item = rng.random_range(0..self.train.n_items() as u32);
                if !self.train.contains(user, item) {
                    break item;
                }
            };
            batch.users.push(user);
            batch.positives.push(item);
            batch.negatives.push(negative);
        }
        if self.mask > 0.0 {
            let nodes = self.train.n_users() + self.train.n_items();
            let count = ((nodes as f64 * self.mask) as usize).clamp(1, nodes);
            let masked = rand::seq::index::sample(&mut rng, nodes, count);
            batch.masked.extend(masked.into_iter().map(|row| row as u32));
            batch.masked.sort_unstable();
        }
        batch
    }
}
