use std::sync::Arc;

use candle_core::{Device, Result, Tensor, Var};
use glta_graph::Adjacency;
use ndarray::{Array2, ArrayView2, s};
use rand::SeedableRng;
use rand::distr::Distribution;
use rand_chacha::ChaCha8Rng;

use super::config::ContrastiveConfig;
use super::loss::{bpr, info_nce, leaky};
use super::propagate::Propagate;
use super::sampler::Batch;

/// Slope of HCCF's leaky ReLU for negative values.
const HYPER_SLOPE: f64 = 0.5;
/// That of the text projection.
const TEXT_SLOPE: f64 = 0.01;

/// Two linear layers from a text's space to the nodes' (RLMRec's, half way
/// between in width).
struct Projection {
    first: Var,
    second: Var,
}

impl Projection {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        leaky(&x.matmul(&self.first)?, TEXT_SLOPE)?.matmul(&self.second)
    }
}

/// Texts of one side of the graph.
struct Side {
    /// `(nodes, text dim)`
    vectors: Tensor,
    /// Nodes that have a text.
    known: Vec<bool>,
    projection: Projection,
}

/// The trained tensors and the loss over them.
pub(super) struct Model {
    config: ContrastiveConfig,
    propagate: Propagate,
    n_users: usize,
    /// `(users + items, dim)`
    embeddings: Var,
    /// `(dim, hyperedges)` of users and of items.
    hyper: Option<[Var; 2]>,
    users: Option<Side>,
    items: Option<Side>,
}

/// What a pass over the graph gives, users and items stacked.
struct Pass {
    /// `(users + items, dim)`
    nodes: Tensor,
    /// Of each layer, what graph and hypergraph say.
    views: Vec<(Tensor, Tensor)>,
}

fn normal(rng: &mut ChaCha8Rng, rows: usize, columns: usize, std: f64) -> candle_core::Result<Var> {
    let normal = rand_distr::Normal::new(0.0, std as f32).map_err(candle_core::Error::wrap)?;
    let values: Vec<f32> = (0..rows * columns).map(|_| normal.sample(rng)).collect();
    Var::from_tensor(&Tensor::from_vec(values, (rows, columns), &Device::Cpu)?)
}

/// Glorot's standard deviation.
fn xavier(rng: &mut ChaCha8Rng, rows: usize, columns: usize) -> Result<Var> {
    normal(rng, rows, columns, (2.0 / (rows + columns) as f64).sqrt())
}

impl Side {
    fn new(rng: &mut ChaCha8Rng, vectors: ArrayView2<f32>, dim: usize) -> Result<Self> {
        let (nodes, width) = vectors.dim();
        let known = vectors.rows().into_iter().map(|r| r.iter().any(|&v| v != 0.0)).collect();
        let vectors =
            Tensor::from_vec(vectors.iter().copied().collect(), (nodes, width), &Device::Cpu)?;
        let middle = width.midpoint(dim);
        let projection =
            Projection { first: xavier(rng, width, middle)?, second: xavier(rng, middle, dim)? };
        Ok(Self { vectors, known, projection })
    }

    /// Contrast of the nodes `ids` (rows `offset + id` of `nodes`) with their texts.
    fn contrast(
        &self,
        nodes: &Tensor,
        offset: usize,
        ids: &[u32],
        temperature: f64,
    ) -> Result<Tensor> {
        let mut ids: Vec<u32> = ids.iter().copied().filter(|&i| self.known[i as usize]).collect();
        if ids.is_empty() {
            // A single node has nothing to be told apart from: loss and gradient
            // are zero, but there.
            ids.extend((0u32..).zip(&self.known).find(|(_, known)| **known).map(|(i, _)| i));
        }
        let texts = self.vectors.index_select(&index(&ids, 0)?, 0)?;
        let nodes = nodes.index_select(&index(&ids, offset)?, 0)?;
        info_nce(&nodes, &self.projection.forward(&texts)?, temperature)
    }
}

fn index(ids: &[u32], offset: usize) -> Result<Tensor> {
    let ids: Vec<u32> = ids.iter().map(|&i| i + offset as u32).collect();
    let n = ids.len();
    Tensor::from_vec(ids, n, &Device::Cpu)
}

fn distinct(ids: &[u32]) -> Vec<u32> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    ids
}

impl Model {
    pub(super) fn new(
        config: &ContrastiveConfig,
        graph: Adjacency,
        users: Option<ArrayView2<f32>>,
        items: Option<ArrayView2<f32>>,
    ) -> Result<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        let (n_users, nodes, dim) =
            (graph.n_users(), graph.n_users() + graph.n_items(), config.dim);
        let embeddings = normal(&mut rng, nodes, dim, config.init_std)?;
        let hyper = match config.hyperedges {
            0 => None,
            n => Some([xavier(&mut rng, dim, n)?, xavier(&mut rng, dim, n)?]),
        };
        let mut side = |vectors: Option<ArrayView2<f32>>| {
            let texts =
                |v: &ArrayView2<f32>| config.text_weight > 0.0 && v.iter().any(|&v| v != 0.0);
            let vectors = vectors.filter(texts);
            vectors.map(|v| Side::new(&mut rng, v, dim)).transpose()
        };
        Ok(Self {
            config: config.clone(),
            n_users,
            embeddings,
            hyper,
            users: side(users)?,
            items: side(items)?,
            propagate: Propagate(Arc::new(graph)),
        })
    }

    pub(super) fn parameters(&self) -> Vec<Var> {
        let mut out = vec![self.embeddings.clone()];
        out.extend(self.hyper.iter().flatten().cloned());
        for side in [&self.users, &self.items].into_iter().flatten() {
            out.extend([side.projection.first.clone(), side.projection.second.clone()]);
        }
        out
    }

    /// `H · leaky(Hᵀ X)` of one side, `H = E W` (HCCF, eq. 4 to 6), `H` scaled so
    /// that the sums over nodes and hyperedges keep the size of `X`.
    fn hypergraph(&self, start: usize, len: usize, w: &Var, x: &Tensor) -> Result<Tensor> {
        let e = self.embeddings.narrow(0, start, len)?;
        let h = (e.matmul(w)? / (len as f64).sqrt())?;
        let x = x.narrow(0, start, len)?;
        let edges = leaky(&h.t()?.matmul(&x)?, HYPER_SLOPE)?;
        leaky(&h.matmul(&edges)?, HYPER_SLOPE)
    }

    fn pass(&self) -> Result<Pass> {
        let mut x = self.embeddings.as_tensor().clone();
        let mut nodes = x.clone();
        let mut views = Vec::new();
        let n_items = x.dim(0)? - self.n_users;
        for _ in 0..self.config.layers {
            let graph = self.propagate.apply(&x)?;
            x = match &self.hyper {
                None => graph,
                Some([users, items]) => {
                    let users = self.hypergraph(0, self.n_users, users, &x)?;
                    let items = self.hypergraph(self.n_users, n_items, items, &x)?;
                    let hyper = Tensor::cat(&[users, items], 0)?;
                    let sum = (&graph + &hyper)?;
                    views.push((graph, hyper));
                    sum
                }
            };
            nodes = (nodes + &x)?;
        }
        // The mean, which ranks as the sum does and keeps its size.
        Ok(Pass { nodes: (nodes / (self.config.layers + 1) as f64)?, views })
    }

    /// The loss of a batch. The graph's view is a fixed target of the hypergraph's
    /// where `stop` is set, as it is in training.
    pub(super) fn loss(&self, batch: &Batch, stop: bool) -> Result<Tensor> {
        let config = &self.config;
        let pass = self.pass()?;
        let [users, positives, negatives] = [
            index(&batch.users, 0)?,
            index(&batch.positives, self.n_users)?,
            index(&batch.negatives, self.n_users)?,
        ];
        let rows = |of: &Tensor, ids: &Tensor| of.index_select(ids, 0);
        let mut loss = bpr(
            &rows(&pass.nodes, &users)?,
            &rows(&pass.nodes, &positives)?,
            &rows(&pass.nodes, &negatives)?,
        )?;
        let mut squares = Vec::new();
        for ids in [&users, &positives, &negatives] {
            squares.push(rows(&self.embeddings, ids)?.sqr()?.sum_all()?);
        }
        let squares = Tensor::stack(&squares, 0)?.sum_all()?;
        loss = (loss + (squares * (0.5 * config.l2 / batch.users.len() as f64))?)?;

        let (some_users, some_items) = (distinct(&batch.users), distinct(&batch.positives));
        if config.hyper_weight > 0.0 {
            let [users, items] = [index(&some_users, 0)?, index(&some_items, self.n_users)?];
            for (graph, hyper) in &pass.views {
                let graph = if stop { graph.detach() } else { graph.clone() };
                for ids in [&users, &items] {
                    let contrast =
                        info_nce(&rows(&graph, ids)?, &rows(hyper, ids)?, config.temperature)?;
                    loss = (loss + (contrast * config.hyper_weight)?)?;
                }
            }
        }
        let sides = [(&self.users, 0, &some_users), (&self.items, self.n_users, &some_items)];
        for (side, offset, ids) in sides {
            let Some(side) = side else { continue };
            let contrast = side.contrast(&pass.nodes, offset, ids, config.temperature)?;
            loss = (loss + (contrast * config.text_weight)?)?;
        }
        Ok(loss)
    }

    /// Embeddings to score with, `(users, dim)` and `(items, dim)`.
    pub(super) fn embeddings(&self) -> Result<[Array2<f32>; 2]> {
        let nodes = self.pass()?.nodes.detach();
        let dims = nodes.dims2()?;
        let values = nodes.flatten_all()?.to_vec1::<f32>()?;
        let nodes = Array2::from_shape_vec(dims, values).map_err(candle_core::Error::wrap)?;
        Ok([
            nodes.slice(s![..self.n_users, ..]).to_owned(),
            nodes.slice(s![self.n_users.., ..]).to_owned(),
        ])
    }
}
