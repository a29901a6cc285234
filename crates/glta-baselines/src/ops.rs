//! Operations with hand-written gradients. Each takes one pass, whereas chains of candle's
//! elementwise operations take many passes and allocate a tensor for each.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// Number of values per parallel task.
const CHUNK: usize = 1 << 14;

/// Computes `max(x, 0) - slope · max(-x, 0)` of a tensor of any shape.
pub(crate) fn leaky(x: &Tensor, slope: f64) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Leaky(slope as f32))
}

/// Scales the rows to length 1.
pub(crate) fn normalized(x: &Tensor) -> Result<Tensor> {
    let length = (x.sqr()?.sum_keepdim(D::Minus1)? + 1e-12)?.sqrt()?;
    x.broadcast_div(&length)
}

fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => bail!("expected contiguous F32"),
    }
}

struct Leaky(f32);

impl CustomOp1 for Leaky {
    fn name(&self) -> &'static str {
        "leaky"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let slope = self.0;
        let x = values(x, layout)?;
        let mut out = vec![0f32; x.len()];
        out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(out, x)| {
            out.iter_mut().zip(x).for_each(|(out, &x)| *out = if x > 0.0 { x } else { slope * x });
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        x.apply_op2_no_bwd(&gradient.contiguous()?, &LeakySlope(self.0)).map(Some)
    }
}

/// The gradient of [`Leaky`], computed from its input and the gradient of its output.
struct LeakySlope(f32);

impl CustomOp2 for LeakySlope {
    fn name(&self) -> &'static str {
        "leaky slope"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let slope = self.0;
        let (x, gradient) = (values(x, layout)?, values(gradient, gradient_layout)?);
        let mut out = vec![0f32; x.len()];
        out.par_chunks_mut(CHUNK)
            .zip(x.par_chunks(CHUNK).zip(gradient.par_chunks(CHUNK)))
            .for_each(|(out, (x, gradient))| {
                for ((out, &x), &g) in out.iter_mut().zip(x).zip(gradient) {
                    *out = if x > 0.0 { g } else { slope * g };
                }
            });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }
}

/// Computes `x · w` without the gradient of `x`, which candle's product would also compute. Call
/// this only for an `x (n, in)` that is not trained. `w` is `(in, out)`.
pub(crate) fn times_fixed(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    w.contiguous()?.apply_op1(TimesFixed(x.detach()))
}

struct TimesFixed(Tensor);

impl CustomOp1 for TimesFixed {
    fn name(&self) -> &'static str {
        "product with fixed rows"
    }

    fn cpu_fwd(&self, w: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let w = Tensor::from_slice(values(w, layout)?, layout.shape(), self.0.device())?;
        let product = self.0.matmul(&w)?;
        let shape = product.shape().clone();
        Ok((CpuStorage::F32(product.flatten_all()?.to_vec1()?), shape))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        self.0.t()?.matmul(gradient).map(Some)
    }
}

/// Computes the loss `-ln softmax` of column 0 for each row of `logits (n, columns)`. Returns
/// `(n,)`. The softmax of a row omits the columns in the row's entry of `left_out`.
pub(crate) fn first_among(logits: &Tensor, left_out: Vec<Vec<u32>>) -> Result<Tensor> {
    if left_out.len() != logits.dim(0)? {
        bail!("{} rows of columns for {} rows of logits", left_out.len(), logits.dim(0)?);
    }
    logits.contiguous()?.apply_op1(FirstAmong(left_out.into()))
}

#[derive(Clone)]
struct FirstAmong(Arc<[Vec<u32>]>);

impl FirstAmong {
    /// Writes the numerators of a row's softmax to `out`, divided by the largest one, and returns
    /// the log-sum-exp of the logits. Both omit the columns `left_out`.
    fn numerators(logits: &[f32], left_out: &[u32], out: &mut [f32]) -> f32 {
        out.copy_from_slice(logits);
        left_out.iter().for_each(|&column| out[column as usize] = f32::NEG_INFINITY);
        let largest = out.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        out.iter_mut().for_each(|value| *value = (*value - largest).exp());
        largest + out.iter().sum::<f32>().ln()
    }
}

impl CustomOp1 for FirstAmong {
    fn name(&self) -> &'static str {
        "loss of the first column"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, columns) = layout.shape().dims2()?;
        let logits = values(logits, layout)?;
        let mut out = vec![0f32; rows];
        let rows_of = logits.par_chunks(columns).zip(&self.0[..]).zip(&mut out);
        rows_of.for_each_init(
            || vec![0f32; columns],
            |buffer, ((logits, left_out), out)| {
                *out = Self::numerators(logits, left_out, buffer) - logits[0];
            },
        );
        Ok((CpuStorage::F32(out), rows.into()))
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let slope = FirstAmongSlope(self.clone());
        logits.apply_op2_no_bwd(&gradient.contiguous()?, &slope).map(Some)
    }
}

/// The gradient of [`FirstAmong`], computed from its input and the gradient of its output.
struct FirstAmongSlope(FirstAmong);

impl CustomOp2 for FirstAmongSlope {
    fn name(&self) -> &'static str {
        "slope of the loss of the first column"
    }

    fn cpu_fwd(
        &self,
        logits: &CpuStorage,
        layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let columns = layout.shape().dims2()?.1;
        let (logits, gradient) = (values(logits, layout)?, values(gradient, gradient_layout)?);
        let mut out = vec![0f32; logits.len()];
        let rows = logits.par_chunks(columns).zip(gradient).zip(&self.0.0[..]);
        out.par_chunks_mut(columns).zip(rows).for_each(|(out, ((logits, &gradient), left_out))| {
            FirstAmong::numerators(logits, left_out, out);
            let scale = gradient / out.iter().sum::<f32>();
            out.iter_mut().for_each(|value| *value *= scale);
            out[0] -= gradient;
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    /// Compares values and gradients with those of candle's operations, for a strided input.
    #[test]
    fn equals_candle_operations() {
        let small = (0..35).map(|i| (i * 37 % 23) as f32 / 3.0 - 3.1);
        let values: Vec<f32> = small.chain([60.0]).collect();
        let x = Var::from_vec(values, (4, 9), &Device::Cpu).unwrap();
        let weight = Tensor::arange(1f32, 10.0, &Device::Cpu).unwrap().reshape((9, 1)).unwrap();
        let compare = |got: Tensor, expected: Tensor| {
            let gradient = |out: &Tensor| {
                let loss = out.broadcast_mul(&weight).unwrap().sum_all().unwrap();
                let store = loss.backward().unwrap();
                store.get(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
            };
            let value = |out: &Tensor| out.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let all = |out: &Tensor| [value(out), gradient(out)].concat();
            for (a, b) in all(&got).into_iter().zip(all(&expected)) {
                assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{a} {b}");
            }
        };
        let strided = x.t().unwrap();
        let chain = (strided.relu().unwrap()
            - (strided.neg().unwrap().relu().unwrap() * 0.3).unwrap())
        .unwrap();
        compare(leaky(&strided, 0.3).unwrap(), chain);
    }

    #[test]
    fn the_loss_of_the_first_column_by_hand() {
        let logits = [[1.0f32, 2.0, 90.0, 0.5], [0.0, -1.0, 3.0, 0.0], [70.0, 5.0, 5.0, 5.0]];
        let left_out = vec![vec![2], vec![], vec![1, 2, 3]];
        let logits = Var::new(&logits, &Device::Cpu).unwrap();
        let loss = first_among(&logits, left_out.clone()).unwrap();
        let e = f64::exp;
        let sums = [e(1.0) + e(2.0) + e(0.5), 2.0 + e(-1.0) + e(3.0), e(70.0)];
        let expected = [sums[0].ln() - 1.0, sums[1].ln(), 0.0];
        for (a, b) in loss.to_vec1::<f32>().unwrap().into_iter().zip(expected) {
            assert!((f64::from(a) - b).abs() < 1e-6, "{a} {b}");
        }
        let weights = Tensor::new(&[1.0f32, 2.0, 3.0], &Device::Cpu).unwrap();
        let store = (loss * weights).unwrap().sum_all().unwrap().backward().unwrap();
        let gradient = store.get(&logits).unwrap().to_vec2::<f32>().unwrap();
        let share = |row: usize, of: f64| e(of) / sums[row];
        let expected = [
            [share(0, 1.0) - 1.0, share(0, 2.0), 0.0, share(0, 0.5)],
            [share(1, 0.0) - 1.0, share(1, -1.0), share(1, 3.0), share(1, 0.0)].map(|v| 2.0 * v),
            [0.0; 4],
        ];
        for (a, b) in gradient.concat().into_iter().zip(expected.concat()) {
            assert!((f64::from(a) - b).abs() < 1e-6, "{a} {b}");
        }
        assert!(first_among(&logits, vec![vec![]]).is_err());
    }

    #[test]
    fn a_product_with_fixed_rows_equals_candle() {
        let x = Tensor::arange(0f32, 15.0, &Device::Cpu).unwrap().reshape((5, 3)).unwrap();
        let w = Var::from_vec((0..6).map(|i| (i as f32).sin()).collect(), (3, 2), &Device::Cpu);
        let w = w.unwrap();
        let both = |product: Tensor| {
            let store = product.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            (product.to_vec2::<f32>().unwrap(), store.get(&w).unwrap().to_vec2::<f32>().unwrap())
        };
        assert_eq!(both(times_fixed(&x, &w).unwrap()), both(x.matmul(&w).unwrap()));
    }
}
