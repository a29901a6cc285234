//! Provides frozen graph nodes and text vectors as features of users and items.

use candle_core::{Device, Tensor};
use glta_data::Interactions;
use glta_graph::{NodeEmbeddings, fold_in_user};
use glta_linear::TextVectors;
use ndarray::Array2;

use crate::config::{ModelConfig, NodeFeatures, UserNode};
use crate::{Error, Result};

/// The node embeddings of graph pretraining. Users and items are each scaled to a root mean square
/// of one, because projectors are initialised for this scale. The node of a context is scaled
/// separately, because the sum grows with the size of the context, which changes in every training
/// step.
#[derive(Debug)]
pub(crate) struct Nodes {
    /// User embeddings, kept only if user tokens are projected from them.
    users: Option<Array2<f32>>,
    items: Array2<f32>,
    /// Text vectors `(items, t)`, which are appended to the graph embeddings.
    texts: Option<Texts>,
    /// Whether graph embeddings are used.
    graph: bool,
    item_degrees: Vec<u32>,
    item_tensor: Tensor,
    device: Device,
}

/// Text vectors with the scale by which they are divided.
#[derive(Debug)]
struct Texts {
    vectors: TextVectors,
    scale: f32,
}

impl Texts {
    fn row(&self, item: usize) -> impl Iterator<Item = f32> {
        self.vectors.row(item).iter().map(|value| value / self.scale)
    }
}

/// Returns an error if the numbers of users or items of the embeddings differ from those of the
/// training data.
pub(crate) fn check_embeddings(embeddings: &NodeEmbeddings, train: &Interactions) -> Result<()> {
    let (users, items) = (&embeddings.users, &embeddings.items);
    let fit = (users.nrows(), items.nrows()) == (train.n_users(), train.n_items());
    if fit && users.ncols() == items.ncols() {
        return Ok(());
    }
    Err(Error::Data(format!(
        "node embeddings have the shapes {:?} and {:?}, but there are {} users and {} items",
        users.shape(),
        items.shape(),
        train.n_users(),
        train.n_items()
    )))
}

impl Nodes {
    /// Creates the nodes. `train` is the graph of the embeddings, and `texts` are the text vectors
    /// of the items, `(items, t)`. If `texts` is `None`, graph embeddings are used, even if
    /// `config` selects text vectors.
    pub(crate) fn new(
        embeddings: NodeEmbeddings,
        train: &Interactions,
        texts: Option<TextVectors>,
        config: &ModelConfig,
        device: &Device,
    ) -> Result<Self> {
        check_embeddings(&embeddings, train)?;
        let NodeEmbeddings { mut users, mut items } = embeddings;
        users /= rms(users.iter());
        items /= rms(items.iter());
        let users = (config.user_node == UserNode::Embedding).then_some(users);
        let texts = texts.filter(|_| config.node_features != NodeFeatures::Graph);
        if let Some(texts) = texts.as_ref().filter(|texts| texts.n_items() != items.nrows()) {
            let (texts, items) = (texts.n_items(), items.nrows());
            return Err(Error::Data(format!("there are {texts} text vectors for {items} items")));
        }
        let texts = texts.map(|vectors| Texts { scale: rms(vectors.view().iter()), vectors });
        let graph = config.node_features != NodeFeatures::Text || texts.is_none();
        let rows = items.nrows();
        let mut values = Vec::new();
        for (item, row) in items.rows().into_iter().enumerate() {
            if graph {
                values.extend(row);
            }
            values.extend(texts.iter().flat_map(|texts| texts.row(item)));
        }
        let columns = values.len() / rows.max(1);
        let item_tensor = Tensor::from_vec(values, (rows, columns), device)?;
        let item_degrees = train.item_degrees();
        let device = device.clone();
        Ok(Self { users, items, texts, graph, item_degrees, item_tensor, device })
    }

    /// Returns the width of a node, which consists of the graph embedding, the text vector, or
    /// both.
    pub(crate) fn dim(&self) -> usize {
        let graph = if self.graph { self.items.ncols() } else { 0 };
        graph + self.texts.as_ref().map_or(0, |texts| texts.vectors.view().ncols())
    }

    pub(crate) fn n_items(&self) -> usize {
        self.items.nrows()
    }

    /// Returns all item nodes, `(items, d)`.
    pub(crate) fn all_items(&self) -> &Tensor {
        &self.item_tensor
    }

    /// Returns the nodes of `items`, `(items.len(), d)`.
    pub(crate) fn items(&self, items: &[u32]) -> Result<Tensor> {
        Ok(self.item_tensor.index_select(&Tensor::new(items, &self.device)?, 0)?)
    }

    /// Returns the trained nodes of users, `(users.len(), d)`. The node of a user outside the
    /// training data is estimated from the context items.
    pub(crate) fn users<'a>(
        &self,
        users: impl ExactSizeIterator<Item = (Option<u32>, &'a [u32])>,
    ) -> Result<Tensor> {
        let rows = users.len();
        let mut values = Vec::with_capacity(rows * self.dim());
        for (user, context) in users {
            match (user, &self.users) {
                (Some(user), Some(users)) if self.graph => {
                    values.extend(users.row(user as usize));
                    self.append_texts(context, &mut values);
                }
                _ => self.append_context(context, &mut values),
            }
        }
        Ok(Tensor::from_vec(values, (rows, self.dim()), &self.device)?)
    }

    /// Computes one step through the frozen graph from each context, scaled to a root mean square
    /// of one, `(contexts.len(), d)`.
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
        if self.graph {
            let node = fold_in_user(self.items.view(), &self.item_degrees, context);
            let scale = rms(node.iter());
            values.extend(node.iter().map(|value| value / scale));
        }
        self.append_texts(context, values);
    }

    /// Appends the sum of the context's text vectors, scaled to a root mean square of one.
    fn append_texts(&self, context: &[u32], values: &mut Vec<f32>) {
        let Some(texts) = &self.texts else { return };
        let mut sum = vec![0f32; texts.vectors.view().ncols()];
        for &item in context {
            sum.iter_mut().zip(texts.row(item as usize)).for_each(|(sum, value)| *sum += value);
        }
        let scale = rms(sum.iter());
        values.extend(sum.iter().map(|value| value / scale));
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
        let config = ModelConfig::default();
        let nodes = Nodes::new(embeddings.clone(), &train, None, &config, &Device::Cpu).unwrap();
        let contexts = [&[0u32, 1][..], &[1], &[]];
        let got = nodes.contexts(contexts.into_iter()).unwrap().to_vec2::<f32>().unwrap();
        // e_0/√1 + e_1/√3 has the direction (√3, 1). The node of a single item has the item's
        // direction.
        assert!((got[0][0] / got[0][1] - 3f32.sqrt()).abs() < 1e-5);
        assert!(got[1][0].abs() < 1e-6 && (got[1][1] - 2f32.sqrt()).abs() < 1e-5);
        let squares: f32 = got[0].iter().map(|v| v * v).sum();
        assert!((squares / 2.0 - 1.0).abs() < 1e-5, "unit root mean square");
        assert_eq!(got[2], [0.0, 0.0]);

        let other = Interactions::from_pairs(2, 3, []).unwrap();
        assert!(Nodes::new(embeddings, &other, None, &config, &Device::Cpu).is_err());
    }

    #[test]
    fn text_vectors_are_used_with_the_graph_or_alone() {
        let train = Interactions::from_pairs(2, 2, [(0, 0), (1, 1)]).unwrap();
        let embeddings = NodeEmbeddings {
            users: array![[1.0, 0.0], [0.0, 1.0]],
            items: array![[1.0, 0.0], [0.0, 1.0]],
        };
        let config = |node_features| ModelConfig {
            node_features,
            user_node: UserNode::Embedding,
            ..ModelConfig::default()
        };
        let texts = TextVectors::new(array![[3.0, 0.0, 0.0], [0.0, 0.0, 3.0]]).unwrap();
        let nodes = |features| {
            let (config, texts) = (config(features), Some(texts.clone()));
            Nodes::new(embeddings.clone(), &train, texts, &config, &Device::Cpu).unwrap()
        };
        let both = nodes(NodeFeatures::GraphText);
        assert_eq!((both.dim(), both.all_items().dims()), (5, &[2, 5][..]));
        let context = both.contexts([&[0u32][..]].into_iter()).unwrap().to_vec2::<f32>().unwrap();
        let root3 = 3f32.sqrt();
        for (got, want) in context[0].iter().zip([2f32.sqrt(), 0.0, root3, 0.0, 0.0]) {
            assert!((got - want).abs() < 1e-6, "{got} {want}");
        }
        let known = both.users([(Some(1), &[1u32][..])].into_iter()).unwrap();
        assert_eq!(known.dims(), [1, 5]);
        let text = nodes(NodeFeatures::Text);
        assert_eq!(text.dim(), 3);
        assert_eq!(text.users([(Some(1), &[1u32][..])].into_iter()).unwrap().dims(), [1, 3]);
        assert_eq!(nodes(NodeFeatures::Graph).dim(), 2);
        let short = Some(TextVectors::new(array![[1.0]]).unwrap());
        let config = config(NodeFeatures::Text);
        let mismatched = Nodes::new(embeddings, &train, short, &config, &Device::Cpu);
        assert!(mismatched.unwrap_err().to_string().contains("1 text vectors"));
    }
}
