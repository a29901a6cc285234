//! Row-parallel operations whose derivative takes one pass. candle's chains of elementwise
//! operations make many passes and allocate a new tensor for each.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// Number of values per task.
const CHUNK: usize = 1 << 14;

/// `max(x, 0) - slope · max(-x, 0)`, of any shape.
pub(super) fn leaky(x: &Tensor, slope: f64) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Leaky(slope as f32))
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

/// The gradient of [`Leaky`] from its input and the output's gradient.
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

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    /// Values and gradients against candle's operations, for a strided input.
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
}
