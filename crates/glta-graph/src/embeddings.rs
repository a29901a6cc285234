use glta_metrics::DotScorer;
use ndarray::Array2;

/// Embeddings of all nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeEmbeddings {
    /// `(users, dim)`.
    pub users: Array2<f32>,
    /// `(items, dim)`.
    pub items: Array2<f32>,
}

impl NodeEmbeddings {
    /// Returns a scorer by inner products.
    pub fn scorer(&self) -> DotScorer<'_> {
        DotScorer { users: self.users.view(), items: self.items.view() }
    }
}
