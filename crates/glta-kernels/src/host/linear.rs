use super::storage::f32_slice;
use crate::backend::{self, Weight};
use crate::cpu::left::LeftTiles;
use crate::cpu::matmul::{self, Addends, Part};
use crate::cpu::shared::Shared;
use crate::error::Result;
use crate::panel::Element;
use crate::precision::Precision;
use crate::simd::SimdLevel;
use crate::weights::Matrix;
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, Layout, Result as CandleResult, Shape, Tensor,
};
use rayon::prelude::*;
use std::sync::Arc;

/// One or more frozen linear layers that read the same input and write side by
/// side: `Y = X Wᵀ + b`, whose only derivative is `dX = dY W`.
#[derive(Debug)]
pub struct Linear {
    matrices: Vec<Arc<Matrix>>,
    columns: Vec<usize>,
    /// Indices of the matrices that store their inputs in the same order.
    classes: Vec<Vec<usize>>,
    bias: Option<Vec<f32>>,
    inputs: usize,
    outputs: usize,
    level: SimdLevel,
    /// What the left operands are rounded to.
    forward: Element,
    backward: Element,
}

impl Linear {
    /// Fuses matrices of the same number of inputs, each with its bias.
    pub(crate) fn new(parts: Vec<Weight>, level: SimdLevel, precision: Precision) -> Self {
        let inputs = parts.first().map_or(0, |(m, _)| m.k);
        let (mut columns, mut outputs) = (Vec::new(), 0);
        for (matrix, _) in &parts {
            assert_eq!(matrix.k, inputs, "fused layers read the same input");
            columns.push(outputs);
            outputs += matrix.n;
        }
        let mut bias = None;
        for ((matrix, part), &column) in parts.iter().zip(&columns) {
            if let Some(part) = part {
                bias.get_or_insert_with(|| vec![0.0; outputs])[column..column + matrix.n]
                    .copy_from_slice(part);
            }
        }
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
        Self { matrices, columns, classes, bias, inputs, outputs, level, forward, backward }
    }

    fn parts(&self, class: &[usize]) -> Vec<Part<'_>> {
        class.iter().map(|&i| Part { matrix: &self.matrices[i], column: self.columns[i] }).collect()
    }

    fn forward_cpu(
        &self,
        x: &[f32],
        residual: Option<&[f32]>,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let rows = x.len() / self.inputs;
        let len = rows * self.outputs;
        if rows * self.inputs != x.len() || residual.is_some_and(|r| r.len() != len) {
            candle_core::bail!("linear: input of {} elements, {} inputs", x.len(), self.inputs);
        }
        let addends = Addends { bias: self.bias.as_deref(), residual };
        let y = filled(len, |y| {
            for class in &self.classes {
                let parts = self.parts(class);
                let order = parts[0].matrix.gather.as_ref().map(|g| g.as_slice());
                LeftTiles::with(self.level, x, self.inputs, order, self.forward, |x| {
                    // SAFETY: `y` has room for all rows; every column belongs
                    // to one part.
                    unsafe { matmul::forward(self.level, &parts, x, y, self.outputs, addends) }
                });
            }
        });
        Ok((CpuStorage::F32(y), (rows, self.outputs).into()))
    }

    fn backward_cpu(&self, dy: &[f32]) -> CandleResult<(CpuStorage, Shape)> {
        let rows = dy.len() / self.outputs;
        if rows * self.outputs != dy.len() {
            candle_core::bail!(
                "linear: gradient of {} elements, {} outputs",
                dy.len(),
                self.outputs
            );
        }
        let dx = LeftTiles::with(self.level, dy, self.outputs, None, self.backward, |dy| {
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
            let mut dx = vec![0.0; rows * self.inputs];
            for class in &self.classes {
                let sorted = product(class);
                let matrix = &self.matrices[class[0]];
                dx.par_chunks_exact_mut(self.inputs)
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
        Ok((CpuStorage::F32(dx), (rows, self.inputs).into()))
    }
}

impl backend::Linear for Linear {
    fn forward(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let op = Forward(self);
        Ok(match residual {
            None => x.apply_op1_no_bwd(&op)?,
            Some(residual) => x.apply_op2_no_bwd(residual, &op)?,
        })
    }

    fn backward(&self, dy: &Tensor) -> Result<Tensor> {
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

/// A vector of `len` elements, all of which `fill` must write.
fn filled(len: usize, fill: impl FnOnce(Shared<f32>)) -> Vec<f32> {
    let mut out = Vec::with_capacity(len);
    fill(Shared::spare(&mut out));
    // SAFETY: the capacity is there, and `fill` wrote every element.
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
        self.0.forward_cpu(f32_slice(x, l)?, None)
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
        self.0.forward_cpu(f32_slice(x, l)?, Some(f32_slice(residual, lr)?))
    }
}

impl CustomOp1 for Backward<'_> {
    fn name(&self) -> &'static str {
        "frozen-linear-backward"
    }
    fn cpu_fwd(&self, dy: &CpuStorage, l: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        self.0.backward_cpu(f32_slice(dy, l)?)
    }
}
