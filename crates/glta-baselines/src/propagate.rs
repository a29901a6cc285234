use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use glta_graph::Adjacency;
use ndarray::{ArrayView2, Axis, concatenate};

/// The product `Â X`, where `X (users + items, dim)` stacks users and items. `Â` is symmetric, so
/// the gradient is the product with the same matrix.
#[derive(Clone)]
pub(crate) struct Propagate(pub(super) Arc<Adjacency>);

impl Propagate {
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        x.contiguous()?.apply_op1(self.clone())
    }
}

impl CustomOp1 for Propagate {
    fn name(&self) -> &'static str {
        "propagate"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let dims = layout.shape().dims2()?;
        let (Some((start, end)), CpuStorage::F32(x)) = (layout.contiguous_offsets(), x) else {
            candle_core::bail!("propagate: expected contiguous F32");
        };
        let x = ArrayView2::from_shape(dims, &x[start..end]).map_err(candle_core::Error::wrap)?;
        if dims.0 != self.0.n_users() + self.0.n_items() {
            candle_core::bail!("propagate: {} rows for another graph", dims.0);
        }
        let (users, items) = x.split_at(Axis(0), self.0.n_users());
        let next = self.0.multiply(users, items).map_err(candle_core::Error::wrap)?;
        let out = concatenate(Axis(0), &[next.users.view(), next.items.view()])
            .map_err(candle_core::Error::wrap)?;
        Ok((CpuStorage::F32(out.into_raw_vec_and_offset().0), dims.into()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        self.apply(gradient).map(Some)
    }
}
