use std::sync::Arc;

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, Layout, Result as CandleResult, Shape, Tensor,
};
use rayon::prelude::*;

use super::storage::f32_slice;
use crate::arguments::Sizes;
use crate::backend;
use crate::cpu::left::LeftTiles;
use crate::cpu::matmul::{self, Addends, Part};
use crate::cpu::shared::Shared;
use crate::error::Result;
use crate::panel::Element;
use crate::precision::Precision;
use crate::simd::SimdLevel;
use crate::weights::{Matrix, Weight};

/// Frozen linear layers with a common input and concatenated outputs: `Y = X Wᵀ + b`. The only
/// derivative is `dX = dY W`.
#[derive(Debug)]
pub struct Linear {
    matrices: Vec<Arc<Matrix>>,
    columns: Vec<usize>,
    /// Groups of matrices, by index, that store their inputs in the same order.
    classes: Vec<Vec<usize>>,
    bias: Option<Vec<f32>>,
    sizes: Sizes,
    level: SimdLevel,
    /// Element type of the inputs in the forward product.
    forward: Element,
    /// Element type of the gradients in the backward product.
    backward: Element,
}

impl Linear {
    /// Fuses matrices with the same number of inputs, each with its bias.
    pub(crate) fn new(parts: Vec<Weight>, level: SimdLevel, precision: Precision) -> Result<Self> {
        let (sizes, bias) = Sizes::fused(&parts)?;
        let mut column = 0;
        let columns = parts.iter().map(|(matrix, _)| {
            column += matrix.n;
            column - matrix.n
        });
        let columns = columns.collect();
        let matrices: Vec<Arc<Matrix>> = parts.into_iter().map(|(m, _)| m).collect();
        let mut classes: Vec<Vec<usize>> = Vec::new();
        for (i, matrix) in matrices.iter().enumerate() {
            match classes.iter_mut().find(|c| matrices[c[0]].gather == matrix.gather) {
                Some(class) => class.push(i),
                None => classes.push(vec![i]),
            }
        }
        let distance = matrices.first().and_then(|m| m.pair_distance()).filter(|&distance| {
            precision == Precision::Bf16
                && matrices.iter().all(|m| m.pair_distance() == Some(distance))
        });
        let (forward, backward) = match distance {
            None => (Element::Single, Element::Single),
            Some(distance) => (Element::Pair { distance }, Element::Pair { distance: 1 }),
        };
        Ok(Self { matrices, columns, classes, bias, sizes, level, forward, backward })
    }

    fn parts(&self, class: &[usize]) -> Vec<Part<'_>> {
        class.iter().map(|&i| Part { matrix: &self.matrices[i], column: self.columns[i] }).collect()
    }

    /// Computes the forward pass. Call this only with arguments that [`Sizes::check_forward`]
    /// accepts.
    fn forward_cpu(&self, x: &[f32], residual: Option<&[f32]>) -> (CpuStorage, Shape) {
        let Sizes { inputs, outputs } = self.sizes;
        let rows = x.len() / inputs;
        let len = rows * outputs;
        let addends = Addends { bias: self.bias.as_deref(), residual };
        let y = filled(len, |y| {
            for class in &self.classes {
                let parts = self.parts(class);
                let order = parts[0].matrix.gather.as_ref().map(|g| g.as_slice());
                LeftTiles::with(self.level, x, inputs, order, self.forward, |x| {
                    // SAFETY: `y` has room for all rows, and every column belongs to one part.
                    unsafe { matmul::forward(self.level, &parts, x, y, outputs, addends) }
                });
            }
        });
        (CpuStorage::F32(y), (rows, outputs).into())
    }

    /// Computes the backward pass. Call this only with an argument that [`Sizes::check_backward`]
    /// accepts.
    fn backward_cpu(&self, dy: &[f32]) -> (CpuStorage, Shape) {
        let Sizes { inputs, outputs } = self.sizes;
        let rows = dy.len() / outputs;
        let dx = LeftTiles::with(self.level, dy, outputs, None, self.backward, |dy| {
            let product = |class: &[usize]| {
                let parts = self.parts(class);
                let stored = parts[0].matrix.k_stored;
                // SAFETY: `dx` has room for all rows; the product fills it.
                filled(rows * stored, |dx| unsafe {
                    matmul::backward(self.level, &parts, dy, dx);
                })
            };
            if let [class] = self.classes.as_slice()
                && self.matrices[class[0]].gather.is_none()
            {
                return product(class);
            }
            let mut dx = vec![0.0; rows * inputs];
            for class in &self.classes {
                let sorted = product(class);
                let matrix = &self.matrices[class[0]];
                dx.par_chunks_exact_mut(inputs)
                    .zip(sorted.par_chunks_exact(matrix.k_stored))
                    .for_each(|(to, from)| match &matrix.gather {
                        None => to.iter_mut().zip(from).for_each(|(to, from)| *to += from),
                        Some(order) => {
                            for (from, &i) in from.iter().zip(order.iter()) {
                                if let Some(to) = to.get_mut(i as usize) {
                                    *to += from;
                                }
                            }
                        }
                    });
            }
            dx
        });
        (CpuStorage::F32(dx), (rows, inputs).into())
    }
}

impl backend::Linear for Linear {
    fn forward(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        self.sizes.check_forward(x, residual)?;
        let op = Forward(self);
        Ok(match residual {
            None => x.apply_op1_no_bwd(&op)?,
            Some(residual) => x.apply_op2_no_bwd(residual, &op)?,
        })
    }

    fn backward(&self, dy: &Tensor) -> Result<Tensor> {
        self.sizes.check_backward(dy)?;
        Ok(dy.apply_op1_no_bwd(&Backward(self))?)
    }

    fn forward_f32(&self, x: &Tensor) -> Result<Tensor> {
        self.forward(x, None)
    }

    fn backward_f32(&self, dy: &Tensor) -> Result<Tensor> {
        self.backward(dy)
    }

    fn resident_bytes(&self) -> usize {
        self.matrices.iter().map(|m| m.resident_bytes()).sum()
    }
}

/// Returns a vector of `len` elements. `fill` must write all of them.
fn filled(len: usize, fill: impl FnOnce(Shared<f32>)) -> Vec<f32> {
    let mut out = Vec::with_capacity(len);
    fill(Shared::spare(&mut out));
    // SAFETY: the capacity exists, and `fill` wrote every element.
    unsafe { out.set_len(len) };
    out
}

struct Forward<'a>(&'a Linear);
struct Backward<'a>(&'a Linear);

impl CustomOp1 for Forward<'_> {
    fn name(&self) -> &'static str {
        "frozen-linear"
    }
    fn cpu_fwd(&self, x: &CpuStorage, l: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        Ok(self.0.forward_cpu(f32_slice(x, l)?, None))
    }
}

impl CustomOp2 for Forward<'_> {
    fn name(&self) -> &'static str {
        "frozen-linear-residual"
    }
    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        l: &Layout,
        residual: &CpuStorage,
        lr: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        Ok(self.0.forward_cpu(f32_slice(x, l)?, Some(f32_slice(residual, lr)?)))
    }
}

impl CustomOp1 for Backward<'_> {
    fn name(&self) -> &'static str {
        "frozen-linear-backward"
    }
    fn cpu_fwd(&self, dy: &CpuStorage, l: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        Ok(self.0.backward_cpu(f32_slice(dy, l)?))
    }
}
