//! Frozen graph nodes as features.

use candle_core::{Device, Tensor};
use glta_data::Interactions;
use glta_graph::{NodeEmbeddings, fold_in_user};
use ndarray::Array2;

use crate::{Error, Result};

/// Node embeddings of graph pretraining, scaled so that users and items each
/// have a root mean square of one: projectors then start at a known scale. A
/// context's node is scaled by itself, because the sum of a context grows with
/// its size, which training changes at every step.
#[derive(Debug)]
pub(crate) struct Nodes {
    users: Array2<f32>,
    items: Array2<f32>,
    item_degrees: Vec<u32>,
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
        let users = users / rms(users.iter());
        let items = items / rms(items.iter());
        let (rows, columns) = items.dim();
        let values: Vec<f32> = items.iter().copied().collect();
        let item_tensor = Tensor::from_vec(values, (rows, columns), device)?;
        let item_degrees = train.item_degrees();
        Ok(Self { users, items, item_degrees, item_tensor, device: device.clone() })
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

    /// One step through the frozen graph from each context, scaled to a root
    /// mean square of one: `(contexts.len(), d)`.
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
        let node = fold_in_user(self.items.view(), &self.item_degrees, context);
        let scale = rms(node.iter());
        values.extend(node.iter().map(|value| value / scale));
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
        let contexts = [&[0u32, 1][..], &[1], &[]];
        let got = nodes.contexts(contexts.into_iter()).unwrap().to_vec2::<f32>().unwrap();
        // e_0/√1 + e_1/√3 has the direction (√3, 1); a lone item its own.
        assert!((got[0][0] / got[0][1] - 3f32.sqrt()).abs() < 1e-5);
        assert!(got[1][0].abs() < 1e-6 && (got[1][1] - 2f32.sqrt()).abs() < 1e-5);
        let squares: f32 = got[0].iter().map(|v| v * v).sum();
        assert!((squares / 2.0 - 1.0).abs() < 1e-5, "unit root mean square");
        assert_eq!(got[2], [0.0, 0.0]);

        let other = Interactions::from_pairs(2, 3, []).unwrap();
        assert!(Nodes::new(&embeddings, &other, &Device::Cpu).is_err());
    }
}
