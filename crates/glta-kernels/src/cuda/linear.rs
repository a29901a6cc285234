//! Frozen linear layers on the device.

use std::sync::{Arc, OnceLock};

use candle_core::{DType, Device, Tensor};

use super::device::Cuda;
use super::elementwise;
use super::launch::expect_f32;
use super::quantized::{Normed, Quantized, few_rows};
use crate::arguments::Sizes;
use crate::backend;
use crate::error::Result;
use crate::weights::{self, DenseData, Matrix, Storage};

/// Linear layers with a common input and concatenated outputs.
#[derive(Debug)]
pub struct Linear {
    /// Consecutive layers that store their inputs in the same order.
    runs: Vec<Run>,
    bias: Option<Tensor>,
    sizes: Sizes,
    cuda: Cuda,
}

#[derive(Debug)]
struct Run {
    /// First output column of the run, and number of columns.
    first: usize,
    outputs: usize,
    weight: Weight,
}

#[derive(Debug)]
enum Weight {
    /// `(outputs, inputs)` in the dtype of activations.
    Dense(Tensor),
    Packed {
        parts: Vec<Quantized>,
        order: Option<Order>,
        /// The weight of [`dequantised`], if it is kept.
        kept: OnceLock<Tensor>,
    },
}

/// The order of the stored inputs.
#[derive(Debug)]
struct Order {
    host: Arc<Vec<u32>>,
    /// Input of each stored position, `(stored,)`; [`Matrix::PADDING`] for none.
    stored: Tensor,
    /// Stored position of each input, `(inputs,)`.
    places: Tensor,
}

impl Order {
    fn upload(cuda: &Cuda, host: &Arc<Vec<u32>>, inputs: usize) -> Result<Self> {
        let mut places = vec![Matrix::PADDING; inputs];
        for (place, &input) in (0..).zip(host.iter()) {
            if let Some(at) = places.get_mut(input as usize) {
                *at = place;
            }
        }
        Ok(Self {
            stored: cuda.table(host.to_vec())?,
            places: cuda.table(places)?,
            host: Arc::clone(host),
        })
    }
}

impl Run {
    fn upload(cuda: &Cuda, matrix: &Matrix, first: usize) -> Result<Self> {
        let weight = match &matrix.storage {
            Storage::Dense(_) => Weight::Dense(upload_dense(matrix, cuda.dtype, cuda)?),
            Storage::Packed(_) => Weight::Packed {
                parts: vec![Quantized::upload(matrix, cuda)?],
                order: matrix
                    .gather
                    .as_ref()
                    .map(|order| Order::upload(cuda, order, matrix.k))
                    .transpose()?,
                kept: OnceLock::new(),
            },
        };
        Ok(Self { first, outputs: matrix.n, weight })
    }

    /// Merges the next run into this one, or returns it.
    fn join(&mut self, next: Self) -> Result<Option<Self>> {
        match (&mut self.weight, next.weight) {
            (Weight::Dense(own), Weight::Dense(other)) => *own = Tensor::cat(&[&*own, &other], 0)?,
            (
                Weight::Packed { parts, order, .. },
                Weight::Packed { parts: others, order: other_order, .. },
            ) if order.as_ref().map(|o| &o.host) == other_order.as_ref().map(|o| &o.host) => {
                for other in others {
                    let joined = match parts.last_mut() {
                        Some(last) => last.join(&other)?,
                        None => false,
                    };
                    if !joined {
                        parts.push(other);
                    }
                }
            }
            (_, weight) => return Ok(Some(Self { weight, ..next })),
        }
        self.outputs += next.outputs;
        Ok(None)
    }

    fn is_whole(&self, outputs: usize) -> bool {
        self.outputs == outputs
    }
}

/// Inputs and outputs of packed parts.
fn dims(parts: &[Quantized]) -> (usize, usize) {
    (parts.first().map_or(0, |p| p.inputs), parts.iter().map(|p| p.outputs).sum())
}

/// The dequantised weight of packed parts, transposed: `(stored inputs, outputs)`.
fn dequantised(parts: &[Quantized], kept: &OnceLock<Tensor>, cuda: &Cuda) -> Result<Tensor> {
    if let Some(w) = kept.get() {
        return Ok(w.clone());
    }
    let w = cuda.unwritten(dims(parts), cuda.dtype)?;
    let mut first = 0;
    for part in parts {
        part.dequantise(&w, first)?;
        first += part.outputs;
    }
    if !cuda.stream.records() {
        cuda.kept.keep(&cuda.stream, kept, &w)?;
    }
    Ok(w)
}

/// An embedding table `(vocab, hidden)`, in its dtype on the host.
pub(super) fn table(cuda: &Cuda, matrix: &Matrix) -> Result<Tensor> {
    let dtype = match &matrix.storage {
        Storage::Dense(DenseData::F16(_)) => DType::F16,
        Storage::Dense(DenseData::Bf16(_)) => DType::BF16,
        _ => DType::F32,
    };
    upload_dense(matrix, dtype, cuda)
}

/// `(n, k)`, rounded on the host, so that the device stores only the result.
fn upload_dense(matrix: &Matrix, dtype: DType, cuda: &Cuda) -> Result<Tensor> {
    let values = matrix.to_row_major();
    let host = Tensor::from_vec(values, (matrix.n, matrix.k), &Device::Cpu)?;
    Ok(host.to_dtype(dtype)?.to_device(&cuda.device)?)
}

impl Linear {
    /// Uploads matrices of the same number of inputs, each with its bias.
    pub(super) fn upload(cuda: &Cuda, layers: &[weights::Weight]) -> Result<Self> {
        let (sizes, bias) = Sizes::fused(layers)?;
        let mut runs: Vec<Run> = Vec::new();
        let mut first = 0;
        for (matrix, _) in layers {
            let run = Run::upload(cuda, matrix, first)?;
            let rest = match runs.last_mut() {
                Some(last) => last.join(run)?,
                None => Some(run),
            };
            runs.extend(rest);
            first += matrix.n;
        }
        for run in &runs {
            if let Weight::Packed { parts, .. } = &run.weight {
                let (inputs, outputs) = dims(parts);
                cuda.kept.add(inputs * outputs * cuda.dtype.size_in_bytes());
            }
        }
        let bias = bias.map(|b| Tensor::from_vec(b, sizes.outputs, &cuda.device)).transpose()?;
        Ok(Self { runs, bias, sizes, cuda: cuda.clone() })
    }

    /// `X Wᵀ` for many rows, in f32 or in the dtype of activations.
    fn products(&self, x: &Tensor, dtype: DType) -> Result<Tensor> {
        let y = self.cuda.unwritten((x.dim(0)?, self.sizes.outputs), dtype)?;
        for run in &self.runs {
            match &run.weight {
                Weight::Dense(w) => self.cuda.stream.multiply(x, &w.t()?, &y, run.first)?,
                Weight::Packed { parts, order, kept } => {
                    let stored = self.stored(x, order.as_ref())?;
                    let w = dequantised(parts, kept, &self.cuda)?;
                    self.cuda.stream.multiply(&stored, &w, &y, run.first)?;
                }
            }
        }
        Ok(y)
    }

    /// Returns [`backend::Linear::forward`] of `x` or its norm, or `silu(gate) * up` for the halves
    /// `(gate, up)` of that; `None` if no single kernel can.
    pub(super) fn fused(
        &self,
        x: &Tensor,
        norm: Option<Normed>,
        gated: bool,
    ) -> Result<Option<Tensor>> {
        self.sizes.check_forward(x, None)?;
        let [Run { weight: Weight::Packed { parts, order, .. }, .. }] = self.runs.as_slice() else {
            return Ok(None);
        };
        let ([part], rows) = (parts.as_slice(), x.dim(0)?) else { return Ok(None) };
        let dtype = self.cuda.dtype;
        if rows == 0
            || (gated && !part.fits_gated(rows, dtype))
            || (norm.is_some() && (order.is_some() || !part.fits_normed(rows, dtype)))
            || norm.is_some_and(|norm| norm.weight.elem_count() != part.inputs)
        {
            return Ok(None);
        }
        let x = self.stored(x, order.as_ref())?;
        part.fused(&x, norm, self.bias.as_ref(), gated).map(Some)
    }

    /// [`backend::Linear::forward_f32`] of `x` in the dtype of activations.
    pub(super) fn in_f32(&self, x: &Tensor) -> Result<Tensor> {
        self.sizes.check_forward(x, None)?;
        if self.cuda.dtype == DType::F32 {
            return backend::Linear::forward(self, x, None);
        }
        let y = self.products(x, DType::F32)?;
        elementwise::add(&self.cuda.stream, &y, self.bias.as_ref(), None)?;
        Ok(y)
    }

    /// The dtype of activations.
    pub(super) fn dtype(&self) -> DType {
        self.cuda.dtype
    }

    /// `x` in the stored order of a run.
    fn stored(&self, x: &Tensor, order: Option<&Order>) -> Result<Tensor> {
        match order {
            None => Ok(x.clone()),
            Some(order) => elementwise::gather_columns(&self.cuda.stream, x, &order.stored),
        }
    }
}

impl backend::Linear for Linear {
    fn forward(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        self.sizes.check_forward(x, residual)?;
        expect_f32("the residual of a layer", residual)?;
        let (rows, _) = x.dims2()?;
        let dtype = residual.map_or(self.cuda.dtype, |_| DType::F32);
        if rows == 0 {
            return self.cuda.unwritten((0, self.sizes.outputs), dtype);
        }
        let bias = self.bias.as_ref();
        if rows <= few_rows(self.cuda.dtype)
            && self.runs.iter().all(|run| matches!(run.weight, Weight::Packed { .. }))
        {
            let y = self.cuda.unwritten((rows, self.sizes.outputs), dtype)?;
            for run in &self.runs {
                let Weight::Packed { parts, order, .. } = &run.weight else { continue };
                let stored = self.stored(x, order.as_ref())?;
                let mut first = run.first;
                for part in parts {
                    part.product(&stored, bias, residual, &y, first)?;
                    first += part.outputs;
                }
            }
            return Ok(y);
        }
        let y = self.products(x, dtype)?;
        elementwise::add(&self.cuda.stream, &y, bias, residual)?;
        Ok(y)
    }

    fn forward_f32(&self, x: &Tensor) -> Result<Tensor> {
        self.sizes.check_forward(x, None)?;
        if x.dim(0)? == 0 {
            return self.cuda.unwritten((0, self.sizes.outputs), DType::F32);
        }
        self.in_f32(&x.to_dtype(self.cuda.dtype)?)
    }

    fn backward(&self, dy: &Tensor) -> Result<Tensor> {
        self.sizes.check_backward(dy)?;
        if dy.dim(0)? == 0 {
            return self.cuda.unwritten((0, self.sizes.inputs), self.cuda.dtype);
        }
        let dy = &dy.to_dtype(self.cuda.dtype)?;
        let mut sum: Option<Tensor> = None;
        for run in &self.runs {
            let own;
            let dy = if run.is_whole(self.sizes.outputs) {
                dy
            } else {
                own = dy.narrow(1, run.first, run.outputs)?.contiguous()?;
                &own
            };
            let dx = match &run.weight {
                Weight::Dense(w) => self.cuda.stream.product(dy, w, self.cuda.dtype)?,
                Weight::Packed { parts, order, kept } => {
                    let w = dequantised(parts, kept, &self.cuda)?;
                    let dx = self.cuda.stream.product(dy, &w.t()?, self.cuda.dtype)?;
                    match order {
                        None => dx,
                        Some(order) => {
                            elementwise::gather_columns(&self.cuda.stream, &dx, &order.places)?
                        }
                    }
                }
            };
            match &sum {
                None => sum = Some(dx),
                Some(sum) => elementwise::add(&self.cuda.stream, sum, None, Some(&dx))?,
            }
        }
        Ok(match sum {
            Some(sum) => sum,
            None => dy.clone(),
        })
    }

    fn backward_f32(&self, dy: &Tensor) -> Result<Tensor> {
        let dx = self.backward(dy)?;
        match dx.dim(0)? {
            0 => self.cuda.unwritten((0, self.sizes.inputs), DType::F32),
            _ => Ok(dx.to_dtype(DType::F32)?),
        }
    }

    fn resident_bytes(&self) -> usize {
        let size = |t: &Tensor| t.elem_count() * t.dtype().size_in_bytes();
        let bytes = |run: &Run| match &run.weight {
            Weight::Dense(w) => size(w),
            Weight::Packed { parts, order, kept } => {
                let order = order
                    .as_ref()
                    .map_or(0, |o| 4 * (o.stored.elem_count() + o.places.elem_count()));
                let parts: usize = parts.iter().map(Quantized::resident_bytes).sum();
                parts + order + kept.get().map_or(0, size)
            }
        };
        self.runs.iter().map(bytes).sum()
    }
}
