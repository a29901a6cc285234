//! Which columns of the embeddings a rank has.

use std::ops::Range;

use glta_comm::Communicator;
use ndarray::{Array2, ArrayViewMut2, s};

use crate::lines::WIDTH;
use crate::{NodeEmbeddings, Result};

/// The columns of all ranks, cut between panels.
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

    /// This rank's.
    pub(crate) fn own(&self) -> Range<usize> {
        self.own.clone()
    }

    /// All columns, of every rank's own.
    pub(crate) fn join(&self, own: NodeEmbeddings) -> Result<NodeEmbeddings> {
        if self.comm.size() == 1 {
            return Ok(own);
        }
        Ok(NodeEmbeddings { users: self.join_one(&own.users)?, items: self.join_one(&own.items)? })
    }

    fn join_one(&self, own: &Array2<f32>) -> Result<Array2<f32>> {
        let bytes: Vec<u8> = own.iter().flat_map(|v| v.to_le_bytes()).collect();
        let mut all = Array2::zeros((own.nrows(), self.dim));
        let mut first = 0;
        for part in self.comm.all_gather(&bytes)? {
            let columns = part.len() / 4 / own.nrows().max(1);
            let end = (first + columns).min(self.dim);
            let into: ArrayViewMut2<'_, f32> = all.slice_mut(s![.., first..end]);
            for (value, bytes) in into.into_iter().zip(part.chunks_exact(4)) {
                *value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
            first = end;
        }
        Ok(all)
    }
}
