use std::sync::Arc;

use candle_core::{Result, Tensor, Var};
use glta_core::stream;
use glta_data::Interactions;
use glta_graph::{Adjacency, NodeEmbeddings};
use ndarray::{Array2, ArrayView2, Axis, concatenate, s};

use super::config::AlphaRecConfig;
use super::sampler::Batch;
use crate::mlp::Mlp;
use crate::ops::{first_among, normalized};
use crate::propagate::Propagate;
use crate::tensors::{index, matrix};

/// The trained MLP, the fixed text vectors and the propagation over the graph.
pub(super) struct Model {
    propagate: Propagate,
    layers: usize,
    temperature: f64,
    n_users: usize,
    /// Text vectors of users and items, `(users + items, text dim)`.
    vectors: Tensor,
    pub(super) mlp: Mlp,
}

impl Model {
    /// Creates an untrained model. `items` contains the text vectors of the items, `(items, text
    /// dim)`.
    pub(super) fn new(
        config: &AlphaRecConfig,
        train: &Interactions,
        items: ArrayView2<'_, f32>,
    ) -> crate::Result<Self> {
        let width = items.ncols();
        let vectors = concatenate(Axis(0), &[means(items, train).view(), items]);
        let vectors = matrix(vectors.map_err(candle_core::Error::wrap)?)?;
        let mut rng = stream(config.seed, "AlphaRec", &[]);
        Ok(Self {
            propagate: Propagate(Arc::new(Adjacency::new(train)?)),
            layers: config.layers,
            temperature: config.temperature,
            n_users: train.n_users(),
            vectors,
            mlp: Mlp::new(&mut rng, width, width.div_ceil(2), config.dim)?,
        })
    }

    pub(super) fn parameters(&self) -> Vec<Var> {
        self.mlp.parameters().collect()
    }

    /// Computes the representations of all nodes, scaled to length 1, `(users + items, dim)`.
    fn nodes(&self) -> Result<Tensor> {
        let mut x = self.mlp.apply_fixed(&self.vectors)?;
        let mut sum = x.clone();
        for _ in 0..self.layers {
            x = self.propagate.apply(&x)?;
            sum = (sum + &x)?;
        }
        // The sum over the layers has the same direction as their mean.
        normalized(&sum)
    }

    /// Computes InfoNCE: the mean of `-ln (e^s(u,i) / (e^s(u,i) + Σ e^s(u,j)))` over the
    /// interactions `(u, i)`. The sum is over the negatives `j`, and `s` are cosines divided by the
    /// temperature.
    pub(super) fn loss(&self, batch: &Batch) -> Result<Tensor> {
        let nodes = self.nodes()?;
        let ids = [
            index(&batch.users, 0)?,
            index(&batch.positives, self.n_users)?,
            index(&batch.negatives, self.n_users)?,
        ];
        // One gather instead of three, because the gradient of each gather is a tensor over all
        // nodes.
        let drawn = nodes.index_select(&Tensor::cat(&ids, 0)?, 0)?;
        let size = batch.users.len();
        let users = drawn.narrow(0, 0, size)?;
        let positives = drawn.narrow(0, size, size)?;
        let negatives = drawn.narrow(0, 2 * size, batch.negatives.len())?;
        let own = (&users * positives)?.sum_keepdim(1)?;
        let others = users.matmul(&negatives.t()?)?;
        let logits = (Tensor::cat(&[own, others], 1)? / self.temperature)?;
        // Column 0 of the logits is the positive, so the negatives start at column 1.
        let left_out = batch.left_out.iter().map(|row| row.iter().map(|at| at + 1).collect());
        first_among(&logits, left_out.collect())?.mean_all()
    }

    /// Returns the embeddings of users and items. Their inner products are cosines.
    pub(super) fn embeddings(&self) -> Result<NodeEmbeddings> {
        let nodes = self.nodes()?.detach();
        let dims = nodes.dims2()?;
        let values = nodes.flatten_all()?.to_vec1::<f32>()?;
        let nodes = Array2::from_shape_vec(dims, values).map_err(candle_core::Error::wrap)?;
        Ok(NodeEmbeddings {
            users: nodes.slice(s![..self.n_users, ..]).to_owned(),
            items: nodes.slice(s![self.n_users.., ..]).to_owned(),
        })
    }
}

/// Returns the mean vector of each user's training items, and zeros for a user without items.
fn means(items: ArrayView2<'_, f32>, train: &Interactions) -> Array2<f32> {
    let mut users = Array2::zeros((train.n_users(), items.ncols()));
    for (user, mut mean) in (0u32..).zip(users.rows_mut()) {
        let own = train.items(user);
        for &item in own {
            mean += &items.row(item as usize);
        }
        mean /= own.len().max(1) as f32;
    }
    users
}
