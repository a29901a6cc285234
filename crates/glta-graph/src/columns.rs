//! Divides the columns of the embeddings among ranks.

use std::ops::Range;

use glta_comm::Communicator;
use ndarray::{Array2, s};

use crate::lines::WIDTH;
use crate::{NodeEmbeddings, Result};

/// The columns that this rank processes: a whole number of panels.
pub(crate) struct Columns<'a> {
    comm: &'a dyn Communicator,
    dim: usize,
    own: Range<usize>,
}

impl<'a> Columns<'a> {
    pub(crate) fn of(comm: &'a dyn Communicator, dim: usize) -> Self {
        let panels = comm.share(dim.div_ceil(WIDTH));
        let column = |panel: usize| (panel * WIDTH).min(dim);
        Self { comm, dim, own: column(panels.start)..column(panels.end) }
    }

    /// Returns the columns of this rank.
    pub(crate) fn own(&self) -> Range<usize> {
        self.own.clone()
    }

    /// Gathers the columns of all ranks.
    pub(crate) fn join(&self, own: NodeEmbeddings) -> Result<NodeEmbeddings> {
        if self.comm.size() == 1 {
            return Ok(own);
        }
        Ok(NodeEmbeddings { users: self.join_one(&own.users)?, items: self.join_one(&own.items)? })
    }

    fn join_one(&self, own: &Array2<f32>) -> Result<Array2<f32>> {
        let own_values: Vec<f32> = own.iter().copied().collect();
        let mut all = Array2::zeros((own.nrows(), self.dim));
        let mut first = 0;
        for part in self.comm.all_gather_f32(&own_values)? {
            let end = (first + part.len() / own.nrows().max(1)).min(self.dim);
            for (to, from) in all.slice_mut(s![.., first..end]).iter_mut().zip(part) {
                *to = from;
            }
            first = end;
        }
        Ok(all)
    }
}
