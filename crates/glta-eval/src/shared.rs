//! What several systems of a seed share, each part fitted when it is first needed.

use std::sync::Arc;

use glta_align::RunData;
use glta_graph::NodeEmbeddings;

use crate::systems::ease::TunedEase;
use crate::systems::node_vectors::NodeVectors;
use crate::systems::text::TunedKnn;

#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) data: Option<Arc<RunData>>,
    pub(crate) ease: Option<Arc<TunedEase>>,
    pub(crate) knn: Option<Arc<TunedKnn>>,
    pub(crate) nodes: Option<Arc<NodeEmbeddings>>,
    pub(crate) node_vectors: Option<Arc<NodeVectors>>,
}
