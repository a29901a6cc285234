use candle_core::{Result, Tensor, Var};
use ndarray::Array2;
use rand_chacha::ChaCha8Rng;

use super::config::ContrastiveConfig;
use super::loss::{Drawn, info_nce};
use super::sampler::Batch;
use crate::mlp::Mlp;
use crate::tensors::{index, matrix};

/// The text vectors of the nodes, and the projection between text space and node space. The
/// projection has two linear layers, which users and items share. The width of its hidden layer is
/// the mean of the two dimensions (RLMRec).
pub(super) struct Texts {
    /// Text vectors of users and items, `(users + items, text dim)`.
    vectors: Tensor,
    /// For each row of `vectors`, whether the node has a text.
    known: Vec<bool>,
    n_users: usize,
    projection: Mlp,
    weight: f64,
    temperature: f64,
}

impl Texts {
    /// Creates an untrained projection. `vectors (users + items, text dim)` contains a row of zeros
    /// for a node without a text. The projection maps texts to the node space, or nodes to the text
    /// space if nodes are masked.
    pub(super) fn new(
        rng: &mut ChaCha8Rng,
        config: &ContrastiveConfig,
        vectors: Array2<f32>,
        n_users: usize,
    ) -> Result<Self> {
        let width = vectors.ncols();
        let known = vectors.rows().into_iter().map(|r| r.iter().any(|&v| v != 0.0)).collect();
        let vectors = matrix(vectors)?;
        let (from, to) = if config.mask > 0.0 { (config.dim, width) } else { (width, config.dim) };
        let projection = Mlp::new(rng, from, from.midpoint(to), to)?;
        let (weight, temperature) = (config.text_weight, config.text_temperature);
        Ok(Self { vectors, known, n_users, projection, weight, temperature })
    }

    pub(super) fn parameters(&self) -> impl Iterator<Item = Var> {
        self.projection.parameters()
    }

    /// Returns the `rows` that have a text, and the number of their draws. If no row has a text,
    /// returns any row that has a text, and 0 draws. The caller multiplies the loss of this row by
    /// 0, so that every tensor still has a gradient.
    fn with_text(&self, rows: impl Iterator<Item = u32>) -> (Drawn, f64) {
        let drawn = Drawn::new(rows.filter(|&row| self.known[row as usize]));
        let count = drawn.times.iter().map(|&times| f64::from(times)).sum();
        if count > 0.0 {
            return (drawn, count);
        }
        let some = (0u32..).zip(&self.known).find(|(_, known)| **known).map(|(row, _)| row);
        (Drawn::new(some.into_iter()), 0.0)
    }

    /// Computes the contrastive loss of `nodes (users + items, dim)`, multiplied by its weight.
    pub(super) fn loss(&self, nodes: &Tensor, batch: &Batch, masked: bool) -> Result<Tensor> {
        let loss = if masked {
            self.generative(nodes, &batch.masked)?
        } else {
            self.contrastive(nodes, batch)?
        };
        loss * self.weight
    }

    /// Computes the loss of RLMRec-Con: InfoNCE between the nodes of the triples and their
    /// projected texts. A user is contrasted with the texts of all users, a positive item with the
    /// texts of the positives in the batch, and a negative item with those of the negatives. A node
    /// without a text adds nothing.
    fn contrastive(&self, nodes: &Tensor, batch: &Batch) -> Result<Tensor> {
        let items = |ids: &[u32]| self.with_text(ids.iter().map(|i| i + self.n_users as u32));
        let users = self.with_text(batch.users.iter().copied());
        let all_users = self.with_text(0..self.n_users as u32).0.rows;
        let of_users =
            self.projection.apply_fixed(&self.vectors.index_select(&index(&all_users, 0)?, 0)?)?;
        let mut place = vec![0u32; self.known.len()];
        (0u32..).zip(&all_users).for_each(|(at, &row)| place[row as usize] = at);

        let sides = [users, items(&batch.positives), items(&batch.negatives)];
        // One gather instead of three, because the gradient of each gather is a tensor over all
        // nodes.
        let ids: Vec<u32> = sides.iter().flat_map(|(drawn, _)| &drawn.rows).copied().collect();
        let anchors = nodes.index_select(&index(&ids, 0)?, 0)?;
        let (mut terms, mut start) = (Vec::new(), 0);
        for (side, (Drawn { rows, times }, count)) in sides.into_iter().enumerate() {
            let anchors = anchors.narrow(0, start, rows.len())?;
            start += rows.len();
            let times = Some(times.as_slice());
            let (others, own, others_times) = if side == 0 {
                let own = rows.iter().map(|&row| place[row as usize]).collect();
                (of_users.clone(), own, None)
            } else {
                let texts = self
                    .projection
                    .apply_fixed(&self.vectors.index_select(&index(&rows, 0)?, 0)?)?;
                (texts, (0..rows.len() as u32).collect::<Vec<_>>(), times)
            };
            let share = count / batch.users.len() as f64;
            let times = [times, others_times];
            let contrast = info_nce(&anchors, &others, &own, self.temperature, times)?;
            terms.push((contrast * share)?);
        }
        Tensor::stack(&terms, 0)?.sum_all()
    }

    /// Computes the loss of RLMRec-Gen: InfoNCE between the projected masked nodes and their texts.
    /// Each node is contrasted with the texts of all masked nodes.
    fn generative(&self, nodes: &Tensor, masked: &[u32]) -> Result<Tensor> {
        // Each node is masked at most once.
        let (drawn, count) = self.with_text(masked.iter().copied());
        let rows = index(&drawn.rows, 0)?;
        let projected = self.projection.apply(&nodes.index_select(&rows, 0)?)?;
        let texts = self.vectors.index_select(&rows, 0)?;
        let own: Vec<u32> = (0..drawn.rows.len() as u32).collect();
        let loss = info_nce(&projected, &texts, &own, self.temperature, [None; 2])?;
        loss * if count > 0.0 { 1.0 } else { 0.0 }
    }
}
