//! Frozen graph nodes as features.

use candle_core::{Device, Tensor};
use glta_data::Interactions;
use glta_graph::NodeEmbeddings;
use ndarray::Array2;

use crate::{Error, Result};

/// Node embeddings of graph pretraining, scaled so that users and items each
/// have a root mean square of one: projectors then start at a known scale.
#[derive(Debug)]
pub(crate) struct Nodes {
    users: Array2<f32>,
    items: Array2<f32>,
    /// `1 / √degree` of every item; zero for items outside the training graph.
    item_weights: Vec<f32>,
    /// Scale of the context features.
    context_scale: f32,
    item_tensor: Tensor,
    device: Device,
}

impl Nodes {
    /// `train` is the graph that the embeddings were trained on.
    pub(crate) fn new(
        embeddings: &NodeEmbeddings,
        train: &Interactions,
        device: &Device,
    ) -> Result<Self> {
        let (users, items) = (&embeddings.users, &embeddings.items);
        if users.nrows() != train.n_users()
            || items.nrows() != train.n_items()
            || users.ncols() != items.ncols()
        {
            return Err(Error::Data(format!(
                "node embeddings of shape {:?} and {:?} do not fit {} users and {} items",
                users.shape(),
                items.shape(),
                train.n_users(),
                train.n_items()
            )));
        }
        let item_weights = train
            .item_degrees()
            .into_iter()
            .map(|d| if d == 0 { 0.0 } else { 1.0 / (d as f32).sqrt() })
            .collect();
        let users = users / rms(users.iter());
        let items = items / rms(items.iter());
        let (rows, columns) = items.dim();
        let values: Vec<f32> = items.iter().copied().collect();
        let item_tensor = Tensor::from_vec(values, (rows, columns), device)?;
        let mut nodes = Self {
            users,
            items,
            item_weights,
            context_scale: 1.0,
            item_tensor,
            device: device.clone(),
        };
        let mut all = Vec::new();
        for user in 0..train.n_users() as u32 {
            if !train.items(user).is_empty() {
                nodes.append_context(train.items(user), &mut all);
            }
        }
        nodes.context_scale = 1.0 / rms(all.iter());
        Ok(nodes)
    }

    pub(crate) fn dim(&self) -> usize {
        self.items.ncols()
    }

    pub(crate) fn n_items(&self) -> usize {
        self.items.nrows()
    }

    /// All item nodes: `(items, d)`.
    pub(crate) fn all_items(&self) -> &Tensor {
        &self.item_tensor
    }

    /// Nodes of `items`: `(items.len(), d)`.
    pub(crate) fn items(&self, items: &[u32]) -> Result<Tensor> {
        Ok(self.item_tensor.index_select(&Tensor::new(items, &self.device)?, 0)?)
    }

    /// The trained nodes of users; a person outside the training data is
    /// estimated by the items of the context: `(users.len(), d)`.
    pub(crate) fn users<'a>(
        &self,
        users: impl ExactSizeIterator<Item = (Option<u32>, &'a [u32])>,
    ) -> Result<Tensor> {
        let rows = users.len();
        let mut values = Vec::with_capacity(rows * self.dim());
        for (user, context) in users {
            match user {
                Some(user) => values.extend(self.users.row(user as usize)),
                None => self.append_context(context, &mut values),
            }
        }
        Ok(Tensor::from_vec(values, (rows, self.dim()), &self.device)?)
    }

    /// One step through the frozen graph from each context:
    /// `Σ e_i / √(deg_i · |context|)`, `(contexts.len(), d)`.
    pub(crate) fn contexts<'a>(
        &self,
        contexts: impl ExactSizeIterator<Item = &'a [u32]>,
    ) -> Result<Tensor> {
        let rows = contexts.len();
        let mut values = Vec::with_capacity(rows * self.dim());
        for context in contexts {
            self.append_context(context, &mut values);
        }
        Ok(Tensor::from_vec(values, (rows, self.dim()), &self.device)?)
    }

    fn append_context(&self, context: &[u32], values: &mut Vec<f32>) {
        let start = values.len();
        values.resize(start + self.dim(), 0.0);
        let row = &mut values[start..];
        let own = self.context_scale / (context.len().max(1) as f32).sqrt();
        for &item in context {
            let weight = own * self.item_weights[item as usize];
            for (sum, value) in row.iter_mut().zip(self.items.row(item as usize)) {
                *sum += weight * value;
            }
        }
    }
}

fn rms<'a>(values: impl ExactSizeIterator<Item = &'a f32>) -> f32 {
    let n = values.len().max(1) as f64;
    let mean = values.map(|v| f64::from(*v).powi(2)).sum::<f64>() / n;
    if mean > 0.0 { mean.sqrt() as f32 } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn context_nodes_are_one_propagation_step() {
        let train = Interactions::from_pairs(3, 3, [(0, 0), (0, 1), (1, 1), (2, 1)]).unwrap();
        let embeddings = NodeEmbeddings {
            users: array![[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]],
            items: array![[2.0, 0.0], [0.0, 2.0], [2.0, 2.0]],
        };
        let nodes = Nodes::new(&embeddings, &train, &Device::Cpu).unwrap();
        let contexts = [&[0u32, 1][..], &[1], &[1]];
        let got = nodes.contexts(contexts.into_iter()).unwrap().to_vec2::<f32>().unwrap();
        // e_0/√(1·2) + e_1/√(3·2), and e_1/√3 twice, up to the common scale.
        let ratio = got[0][0] / got[1][1];
        assert!((ratio - (1.0 / 2f32.sqrt()) / (1.0 / 3f32.sqrt())).abs() < 1e-5);
        assert!((got[0][1] / got[1][1] - 1.0 / 2f32.sqrt()).abs() < 1e-5);
        let squares: f32 = got.iter().flatten().map(|v| v * v).sum();
        assert!((squares / 6.0 - 1.0).abs() < 1e-5, "unit root mean square");

        let other = Interactions::from_pairs(2, 3, []).unwrap();
        assert!(Nodes::new(&embeddings, &other, &Device::Cpu).is_err());
    }
}
