use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, Var};
use glta_core::stream;
use glta_graph::Adjacency;
use ndarray::{Array2, ArrayView2, Axis, concatenate, s};

use super::config::ContrastiveConfig;
use super::loss::{Drawn, bpr, info_nce};
use super::sampler::Batch;
use super::texts::Texts;
use crate::Error;
use crate::ops::leaky;
use crate::propagate::Propagate;
use crate::tensors::{index, normal, xavier};

/// Slope of HCCF's leaky ReLU for negative values.
const HYPER_SLOPE: f64 = 0.5;
/// The trained tensors, the graph and the texts of a contrastive model.
pub(super) struct Model {
    config: ContrastiveConfig,
    propagate: Propagate,
    n_users: usize,
    /// Layer-0 embeddings of users and items, `(users + items, dim)`.
    embeddings: Var,
    /// Matrices that map embeddings to hyperedges, `(dim, hyperedges)`: one for users and one for
    /// items.
    hyper: Option<[Var; 2]>,
    texts: Option<Texts>,
    /// Layer-0 embedding of masked nodes, `(1, dim)`.
    token: Option<Var>,
}

/// Result of a propagation through all layers.
struct Pass {
    /// Final embeddings of users and items, `(users + items, dim)`.
    nodes: Tensor,
    /// Outputs of the graph and of the hypergraph, per layer.
    views: Vec<(Tensor, Tensor)>,
}

/// Stacks the text vectors of users and items, `(users + items, text dim)`. The row of a node
/// without a text is zero. Returns `None` if no node has a text.
fn stacked(
    n_users: usize,
    n_items: usize,
    users: Option<ArrayView2<f32>>,
    items: Option<ArrayView2<f32>>,
) -> crate::Result<Option<Array2<f32>>> {
    let present = |v: &ArrayView2<f32>| v.iter().any(|&v| v != 0.0);
    let (users, items) = (users.filter(present), items.filter(present));
    let width = match (&users, &items) {
        (None, None) => return Ok(None),
        (Some(one), None) | (None, Some(one)) => one.ncols(),
        (Some(users), Some(items)) if users.ncols() == items.ncols() => users.ncols(),
        (Some(users), Some(items)) => {
            return Err(Error::TextVectors(format!(
                "{} columns of users and {} of items: both must come from one encoder",
                users.ncols(),
                items.ncols()
            )));
        }
    };
    let (no_users, no_items) = (Array2::zeros((n_users, width)), Array2::zeros((n_items, width)));
    let users = users.unwrap_or(no_users.view());
    let items = items.unwrap_or(no_items.view());
    let vectors = concatenate(Axis(0), &[users, items]).map_err(candle_core::Error::wrap)?;
    Ok(Some(vectors))
}

impl Model {
    pub(super) fn new(
        config: &ContrastiveConfig,
        graph: Adjacency,
        users: Option<ArrayView2<f32>>,
        items: Option<ArrayView2<f32>>,
    ) -> crate::Result<Self> {
        let mut rng = stream(config.seed, "initial weights", &[]);
        let (n_users, nodes, dim) =
            (graph.n_users(), graph.n_users() + graph.n_items(), config.dim);
        let embeddings = normal(&mut rng, nodes, dim, config.init_std)?;
        let hyper = match config.hyperedges {
            0 => None,
            n => Some([xavier(&mut rng, dim, n)?, xavier(&mut rng, dim, n)?]),
        };
        let texts = match stacked(n_users, nodes - n_users, users, items)? {
            Some(vectors) if config.text_weight > 0.0 => {
                Some(Texts::new(&mut rng, config, vectors, n_users)?)
            }
            _ => None,
        };
        let token = (config.mask > 0.0 && texts.is_some())
            .then(|| Var::zeros((1, dim), DType::F32, &Device::Cpu))
            .transpose()?;
        let propagate = Propagate(Arc::new(graph));
        Ok(Self { config: config.clone(), n_users, embeddings, hyper, texts, token, propagate })
    }

    pub(super) fn parameters(&self) -> Vec<Var> {
        let mut out = vec![self.embeddings.clone()];
        out.extend(self.hyper.iter().flatten().cloned());
        out.extend(self.texts.iter().flat_map(Texts::parameters));
        out.extend(self.token.clone());
        out
    }

    /// Returns layer 0, `(users + items, dim)`, with the token in place of the `masked` nodes.
    fn layer0(&self, masked: &[u32]) -> Result<Tensor> {
        let embeddings = self.embeddings.as_tensor();
        let Some(token) = self.token.as_ref().filter(|_| !masked.is_empty()) else {
            return Ok(embeddings.clone());
        };
        let mut kept = vec![1f32; embeddings.dim(0)?];
        masked.iter().for_each(|&row| kept[row as usize] = 0.0);
        let kept = Tensor::from_vec(kept, (embeddings.dim(0)?, 1), &Device::Cpu)?;
        // The product with the token makes its gradient a product too.
        let hidden = (1.0 - &kept)?.matmul(token)?;
        embeddings.broadcast_mul(&kept)? + hidden
    }

    /// Computes the incidence matrix `H = E W` of users or items (HCCF, eq. 4). The scale preserves
    /// the magnitude of sums over nodes and hyperedges.
    fn incidence(layer0: &Tensor, start: usize, len: usize, w: &Var) -> Result<Tensor> {
        layer0.narrow(0, start, len)?.matmul(&(w.as_tensor() / (len as f64).sqrt())?)
    }

    /// Computes `leaky(H · leaky(Hᵀ X))` for users or items (HCCF, eq. 5 and 6).
    fn hypergraph(h: &Tensor, start: usize, x: &Tensor) -> Result<Tensor> {
        let x = x.narrow(0, start, h.dim(0)?)?;
        let edges = leaky(&h.t()?.matmul(&x)?, HYPER_SLOPE)?;
        leaky(&h.matmul(&edges)?, HYPER_SLOPE)
    }

    fn pass(&self, masked: &[u32]) -> Result<Pass> {
        let mut x = self.layer0(masked)?;
        let mut nodes = x.clone();
        let mut views = Vec::new();
        let n_items = x.dim(0)? - self.n_users;
        let incidences = match &self.hyper {
            None => None,
            Some([users, items]) => Some([
                Self::incidence(&x, 0, self.n_users, users)?,
                Self::incidence(&x, self.n_users, n_items, items)?,
            ]),
        };
        for _ in 0..self.config.layers {
            let graph = self.propagate.apply(&x)?;
            x = match &incidences {
                None => graph,
                Some([users, items]) => {
                    let users = Self::hypergraph(users, 0, &x)?;
                    let items = Self::hypergraph(items, self.n_users, &x)?;
                    let hyper = Tensor::cat(&[users, items], 0)?;
                    let sum = (&graph + &hyper)?;
                    views.push((graph, hyper));
                    sum
                }
            };
            nodes = (nodes + &x)?;
        }
        // The mean gives the same ranking as the sum and has the magnitude of one layer.
        Ok(Pass { nodes: (nodes / (self.config.layers + 1) as f64)?, views })
    }

    /// Computes the loss of a batch. If `stop` is true, as in training, the contrastive loss
    /// between graph and hypergraph has no gradient for the graph's output, which is a fixed target
    /// for the hypergraph's output.
    pub(super) fn loss(&self, batch: &Batch, stop: bool) -> Result<Tensor> {
        let config = &self.config;
        let pass = self.pass(&batch.masked)?;
        let [users, positives, negatives] = [
            index(&batch.users, 0)?,
            index(&batch.positives, self.n_users)?,
            index(&batch.negatives, self.n_users)?,
        ];
        // One gather per tensor, because the gradient of each gather is a tensor over all nodes.
        let size = batch.users.len();
        let triples = Tensor::cat(&[users, positives, negatives], 0)?;
        let drawn = pass.nodes.index_select(&triples, 0)?;
        let part = |n: usize| drawn.narrow(0, n * size, size);
        let mut loss = bpr(&part(0)?, &part(1)?, &part(2)?)?;
        let squares = self.embeddings.index_select(&triples, 0)?.sqr()?.sum_all()?;
        loss = (loss + (squares * (0.5 * config.l2 / size as f64))?)?;

        if config.hyper_weight > 0.0 {
            let users = Drawn::new(batch.users.iter().copied()).rows;
            let items = batch.positives.iter().map(|&item| item + self.n_users as u32);
            let items = Drawn::new(items).rows;
            let ids = index(&[&users[..], &items[..]].concat(), 0)?;
            for (graph, hyper) in &pass.views {
                let graph = if stop { graph.detach() } else { graph.clone() };
                let (graph, hyper) = (graph.index_select(&ids, 0)?, hyper.index_select(&ids, 0)?);
                for (start, len) in [(0, users.len()), (users.len(), items.len())] {
                    let graph = graph.narrow(0, start, len)?;
                    let hyper = hyper.narrow(0, start, len)?;
                    let own: Vec<u32> = (0..len as u32).collect();
                    let contrast = info_nce(&graph, &hyper, &own, config.temperature, [None; 2])?;
                    loss = (loss + (contrast * config.hyper_weight)?)?;
                }
            }
        }
        if let Some(texts) = &self.texts {
            loss = (loss + texts.loss(&pass.nodes, batch, self.token.is_some())?)?;
        }
        Ok(loss)
    }

    /// Returns the final embeddings, `(users, dim)` and `(items, dim)`.
    pub(super) fn embeddings(&self) -> Result<[Array2<f32>; 2]> {
        let nodes = self.pass(&[])?.nodes.detach();
        let dims = nodes.dims2()?;
        let values = nodes.flatten_all()?.to_vec1::<f32>()?;
        let nodes = Array2::from_shape_vec(dims, values).map_err(candle_core::Error::wrap)?;
        Ok([
            nodes.slice(s![..self.n_users, ..]).to_owned(),
            nodes.slice(s![self.n_users.., ..]).to_owned(),
        ])
    }
}
