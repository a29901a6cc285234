use glta_metrics::DotScorer;
use ndarray::Array2;

/// Embeddings of all users and items.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeEmbeddings {
    /// User embeddings, `(users, dim)`.
    pub users: Array2<f32>,
    /// Item embeddings, `(items, dim)`.
    pub items: Array2<f32>,
}

impl NodeEmbeddings {
    /// Returns a scorer that ranks by inner products.
    pub fn scorer(&self) -> DotScorer<'_> {
        DotScorer { users: self.users.view(), items: self.items.view() }
    }
}
