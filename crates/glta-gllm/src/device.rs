//! Computes loss and rankings of tensors on a device, in blocks of items. Only lists of `k` items
//! are copied to the host.

use std::ops::Range;

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp3, D, DType, Device, Layout, Shape, Storage, Tensor, WithDType,
};
use glta_metrics::Ranked;

use crate::blocks::LogSumExp;
use crate::decode::Ranking;
use crate::lists::{MASKED, inside, share};
use crate::{Decoder, Error, Result};

/// Number of logits per block (64 MB).
const BLOCK_LOGITS: usize = 16 << 20;
/// Maximum length of a list that is selected on the device, one maximum at a time.
const LONGEST_LIST: usize = 64;
/// Sentinel index that scatter and gather skip.
const NONE: u32 = u32::MAX;

/// The logits `Z Wᵀ + b + offset: (rows, items)` on a device, computed in blocks of items.
#[derive(Debug, Clone)]
pub(crate) struct Logits {
    /// Hidden states, `(rows, inner)`.
    pub(crate) z: Tensor,
    /// Item weights, `(items, inner)`.
    pub(crate) w: Tensor,
    /// Item biases, `(items,)`.
    pub(crate) bias: Tensor,
    /// Fixed logits that are added, `(rows, items)`.
    pub(crate) offset: Option<Tensor>,
    /// Number of items per block; `None` uses the largest block that fits.
    pub(crate) block: Option<usize>,
}

impl Logits {
    fn ranges(&self) -> Result<impl Iterator<Item = Range<usize>>> {
        let (rows, items) = (self.z.dims2()?.0, self.w.dims2()?.0);
        let block = self.block.unwrap_or((BLOCK_LOGITS / rows.max(1)).max(1024));
        Ok((0..items).step_by(block).map(move |start| start..(start + block).min(items)))
    }

    /// Copies the logits of some items into new memory.
    fn of(&self, range: &Range<usize>) -> Result<Tensor> {
        let (start, len) = (range.start, range.len());
        let product = self.z.matmul(&self.w.narrow(0, start, len)?.t()?)?;
        let logits = product.broadcast_add(&self.bias.narrow(0, start, len)?)?;
        Ok(match &self.offset {
            None => logits,
            Some(offset) => (logits + offset.narrow(1, start, len)?)?,
        })
    }
}

/// Returns the entries of ascending lists that are in `range`, relative to its start, as a tensor
/// `(lists, longest)`. Returns `None` if there is no such entry.
fn indices<'a>(
    lists: impl Iterator<Item = &'a [u32]>,
    range: &Range<usize>,
    device: &Device,
) -> Result<Option<Tensor>> {
    let parts: Vec<Vec<u32>> =
        lists.map(|list| inside(list, range).map(|at| at as u32).collect()).collect();
    let longest = parts.iter().map(Vec::len).max().unwrap_or(0);
    if longest == 0 {
        return Ok(None);
    }
    let mut values = vec![NONE; parts.len() * longest];
    for (row, part) in values.chunks_exact_mut(longest).zip(&parts) {
        row[..part.len()].copy_from_slice(part);
    }
    Ok(Some(Tensor::from_vec(values, (parts.len(), longest), device)?))
}

/// Writes `value` to the entries `at` of `to`.
fn set(to: &Tensor, at: Option<&Tensor>, value: f32) -> Result<()> {
    if let Some(at) = at {
        let values = Tensor::full(value, at.dims(), to.device())?;
        to.scatter_set(at, &values, 1)?;
    }
    Ok(())
}

/// The maximum and `Σ exp(logit − maximum)` of every row, `(rows, 1)` each.
#[derive(Debug)]
struct Sums {
    max: Tensor,
    sum: Tensor,
}

impl Sums {
    fn of(logits: &Tensor) -> Result<Self> {
        let max = logits.max_keepdim(1)?;
        let sum = logits.broadcast_sub(&max)?.exp()?.sum_keepdim(1)?;
        Ok(Self { max, sum })
    }

    fn and(self, other: Self) -> Result<Self> {
        let max = self.max.maximum(&other.max)?;
        let part = |s: &Self| &s.sum * (&s.max - &max)?.exp()?;
        let sum = (part(&self)? + part(&other)?)?;
        Ok(Self { max, sum })
    }

    fn join(before: Option<Self>, logits: &Tensor) -> Result<Self> {
        let own = Self::of(logits)?;
        match before {
            None => Ok(own),
            Some(before) => before.and(own),
        }
    }
}

/// The set cross-entropy of [`Logits`] as a differentiable operation. The value is computed before
/// the operation is added to the graph.
struct CrossEntropy {
    /// Targets of each row, ascending.
    targets: Vec<Vec<u32>>,
    /// Masked items of each row, ascending.
    masked: Vec<Vec<u32>>,
    logits: Logits,
    /// Logarithm of the softmax denominator of every row, `(rows, 1)`.
    log_sum_exp: Tensor,
    /// Weight of the loss of every row, `(rows, 1)`; zero for rows without targets.
    weights: Tensor,
    /// One divided by the number of targets of every row, `(rows, 1)`; zero for rows without
    /// targets.
    shares: Tensor,
    value: Tensor,
}

/// Computes [`crate::loss::blocked_cross_entropy`] on a device, with one weight per row instead of
/// a mean. Each list of `targets` and `masked` must be ascending.
pub(crate) fn cross_entropy(
    logits: Logits,
    targets: Vec<Vec<u32>>,
    masked: Vec<Vec<u32>>,
    weights: Vec<f32>,
) -> Result<Tensor> {
    let (z, w, bias) = (logits.z.clone(), logits.w.clone(), logits.bias.clone());
    let fixed = bias.detach().to_dtype(DType::F32)?;
    let logits = Logits { z: z.detach(), w: w.detach(), bias: fixed, ..logits };
    let device = z.device();
    let rows = targets.len();
    let shares = targets.iter().map(|t| if t.is_empty() { 0.0 } else { share(t) }).collect();
    let weights = Tensor::from_vec(weights, (rows, 1), device)?;
    let shares = Tensor::from_vec(shares, (rows, 1), device)?;

    let mut sums = None;
    let mut hits = Tensor::zeros((rows, 1), DType::F32, device)?;
    for range in logits.ranges()? {
        let block = logits.of(&range)?;
        set(&block, indices(lists(&masked), &range, device)?.as_ref(), MASKED)?;
        if let Some(at) = indices(lists(&targets), &range, device)? {
            hits = (hits + block.gather(&at, 1)?.sum_keepdim(1)?)?;
        }
        sums = Some(Sums::join(sums, &block)?);
    }
    let Some(sums) = sums else { return Err(Error::NoTargets) };
    let log_sum_exp = (sums.max + sums.sum.log()?)?;
    let value = ((&log_sum_exp - (hits * &shares)?)? * &weights)?.sum_all()?;
    let op = CrossEntropy { targets, masked, logits, log_sum_exp, weights, shares, value };
    Ok(z.apply_op3(&w, &bias, op)?)
}

fn lists(lists: &[Vec<u32>]) -> impl Iterator<Item = &[u32]> {
    lists.iter().map(Vec::as_slice)
}

impl CrossEntropy {
    /// Computes the gradients with respect to `z`, `w` and the bias, times the scalar `grad`. The
    /// gradients of the item weights and of the bias are computed only if `w` and `bias` are true.
    fn backward(
        &self,
        grad: &Tensor,
        w: bool,
        bias: bool,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let logits = &self.logits;
        let device = logits.z.device();
        let weights = self.weights.broadcast_mul(&grad.detach())?;
        let (mut dz, mut dw, mut db) = (None::<Tensor>, Vec::new(), Vec::new());
        for range in logits.ranges()? {
            let block = logits.of(&range)?;
            set(&block, indices(lists(&self.masked), &range, device)?.as_ref(), MASKED)?;
            let d = block.broadcast_sub(&self.log_sum_exp)?.exp()?.broadcast_mul(&weights)?;
            if let Some(at) = indices(lists(&self.targets), &range, device)? {
                let shares = (&self.shares * &weights)?.neg()?;
                let shares = shares.broadcast_as(at.dims())?.contiguous()?;
                d.scatter_add_set(&at, &shares, 1)?;
            }
            let part = d.matmul(&logits.w.narrow(0, range.start, range.len())?)?;
            dz = Some(match dz {
                None => part,
                Some(sum) => (sum + part)?,
            });
            if w {
                dw.push(d.t()?.matmul(&logits.z)?);
            }
            if bias {
                db.push(d.sum(0)?);
            }
        }
        let whole =
            |parts: Vec<Tensor>| (!parts.is_empty()).then(|| Tensor::cat(&parts, 0)).transpose();
        Ok((dz, whole(dw)?, whole(db)?))
    }
}

impl CustomOp3 for CrossEntropy {
    fn name(&self) -> &'static str {
        "blocked-cross-entropy"
    }

    // The value is already computed; this call only adds the operation to the graph.
    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let value = self.value.to_scalar::<f32>()?;
        Ok((f32::to_cpu_storage_owned(vec![value]), Shape::from(())))
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        let (storage, layout) = self.value.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Ok((storage.try_clone(layout)?, Shape::from(()))),
            _ => candle_core::bail!("the loss is not on a CUDA device"),
        }
    }

    fn bwd(
        &self,
        _: &Tensor,
        w: &Tensor,
        bias: &Tensor,
        _value: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let _span = tracing::debug_span!("head backward").entered();
        let (dz, dw, db) = self
            .backward(grad, w.track_op(), bias.track_op())
            .map_err(|e| candle_core::Error::Msg(format!("blocked-cross-entropy: {e}")))?;
        Ok((dz, dw, db.map(|db| db.to_dtype(bias.dtype())).transpose()?))
    }
}

/// Computes [`crate::decode::rank`] on a device. Each list of `excluded` must be ascending.
pub(crate) fn rank(
    logits: &Logits,
    slots: usize,
    excluded: &[Vec<u32>],
    k: usize,
    decoder: Decoder,
) -> Result<Vec<Vec<Ranked>>> {
    let device = logits.z.device();
    let users = excluded.len();
    let per_user = if decoder == Decoder::Parallel { slots } else { slots.min(1) };
    let mut best: Vec<Vec<Ranked>> = vec![Vec::new(); users * per_user];
    let mut sums = None;
    for range in logits.ranges()? {
        let block = logits.of(&range)?;
        sums = Some(Sums::join(sums, &block)?);
        let rows = if per_user == slots {
            block
        } else {
            block.reshape((users, slots, range.len()))?.mean(1)?
        };
        let shown = excluded.iter().flat_map(|list| vec![list.as_slice(); per_user]);
        set(&rows, indices(shown, &range, device)?.as_ref(), f32::NEG_INFINITY)?;
        for (list, found) in best.iter_mut().zip(largest(&rows, k)?) {
            let found = found.into_iter();
            let first = range.start as u32;
            crate::decode::merge(list, found.map(|r| Ranked { item: r.item + first, ..r }), k);
        }
    }
    let Some(sums) = sums else { return Ok(vec![Vec::new(); users]) };
    let max: Vec<f32> = sums.max.flatten_all()?.to_vec1()?;
    let sum: Vec<f32> = sums.sum.flatten_all()?.to_vec1()?;
    let sums: Vec<LogSumExp> =
        max.into_iter().zip(sum).map(|(max, sum)| LogSumExp::new(max, f64::from(sum))).collect();
    if sums.iter().any(|sum| !sum.value().is_finite()) {
        return Err(not_a_number(logits, slots)?);
    }
    let mut best = best.into_iter();
    let rankings = sums
        .chunks(slots.max(1))
        .map(|sums| Ranking::of(best.by_ref().take(per_user).collect(), sums.to_vec()));
    Ok(rankings.map(|ranking| ranking.finish(k)).collect())
}

/// Returns the `k` largest values of each row, best first, ties by lower index. Leaves out values
/// of −∞, so a list can be shorter than `k`. Overwrites the rows.
fn largest(rows: &Tensor, k: usize) -> Result<Vec<Vec<Ranked>>> {
    let (n, width) = rows.dims2()?;
    if k > LONGEST_LIST {
        let rows: Vec<Vec<f32>> = rows.to_vec2()?;
        return Ok(rows.iter().map(|row| glta_metrics::best(row, k).unwrap_or_default()).collect());
    }
    let device = rows.device();
    let index = Tensor::arange(0, width as u32, device)?.broadcast_as((n, width))?;
    let none = Tensor::full(NONE, (1, 1), device)?.broadcast_as((n, width))?;
    let taken = Tensor::full(f32::NEG_INFINITY, (n, 1), device)?;
    let (mut scores, mut items) = (Vec::new(), Vec::new());
    for _ in 0..k.min(width) {
        let max = rows.max_keepdim(D::Minus1)?;
        // Find the lowest index of the maximum; there is none if the maximum is NaN.
        let at = rows.broadcast_eq(&max)?.where_cond(&index, &none)?.min_keepdim(D::Minus1)?;
        rows.scatter_set(&at, &taken, 1)?;
        scores.push(max);
        items.push(at);
    }
    if scores.is_empty() {
        return Ok(vec![Vec::new(); n]);
    }
    let scores: Vec<Vec<f32>> = Tensor::cat(&scores, 1)?.to_vec2()?;
    let items: Vec<Vec<u32>> = Tensor::cat(&items, 1)?.to_vec2()?;
    let list = |(scores, items): (Vec<f32>, Vec<u32>)| {
        let pairs = scores.into_iter().zip(items);
        let found = pairs.filter(|&(score, item)| score > f32::NEG_INFINITY && item != NONE);
        found.map(|(score, item)| Ranked { item, score }).collect()
    };
    Ok(scores.into_iter().zip(items).map(list).collect())
}

/// Returns the error for the first logit that is NaN or `+∞`.
fn not_a_number(logits: &Logits, slots: usize) -> Result<Error> {
    for range in logits.ranges()? {
        let block: Vec<Vec<f32>> = logits.of(&range)?.to_vec2()?;
        for (row, block) in block.iter().enumerate() {
            if let Some(at) = block.iter().position(|l| l.is_nan() || *l == f32::INFINITY) {
                return Ok(Error::NotANumber { slot: row % slots.max(1), item: range.start + at });
            }
        }
    }
    Ok(Error::NotANumber { slot: 0, item: 0 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::blocks::with_logits;
    use crate::decode;
    use crate::lists::sorted;

    fn tensor(values: &[f32], rows: usize) -> Tensor {
        Tensor::from_slice(values, (rows, values.len() / rows), &Device::Cpu).unwrap()
    }

    #[test]
    fn a_nan_among_the_blocks_is_an_error() {
        let mut w = vec![0f32; 40];
        w[17] = f32::NAN;
        let (z, w, bias) = (tensor(&[1.0; 4], 4), tensor(&w, 40), tensor(&[0.0; 40], 1));
        let bad = with_logits(&z, &w, &bias, None, Some(7), |logits| {
            decode::rank(logits, 2, &[vec![], vec![17]], 3, Decoder::Parallel)
        });
        assert!(matches!(bad.unwrap(), Err(Error::NotANumber { slot: 0, item: 17 })));
        let bias = bias.flatten_all().unwrap();
        let logits = Logits { z, w, bias, offset: None, block: Some(7) };
        let bad = rank(&logits, 2, &[vec![], vec![17]], 3, Decoder::Parallel);
        assert!(matches!(bad, Err(Error::NotANumber { slot: 0, item: 17 })));
    }

    proptest! {
        /// Small integers make the logits exact and produce many ties.
        #[test]
        fn blocks_give_the_list_of_full_rows(
            z in prop::collection::vec(-2i8..3, 4 * 3),
            w in prop::collection::vec(-2i8..3, 3..150),
            excluded in prop::collection::vec(prop::collection::vec(0u32..50, 0..40), 2),
            k in 0usize..30,
            block in 1usize..60,
        ) {
            let close = |a: f32, b: f32| (a - b).abs() < 1e-6 * a.abs().max(1.0);
            let whole = |v: &[i8]| v.iter().map(|&v| f32::from(v)).collect::<Vec<f32>>();
            let items = w.len() / 3;
            let (z, w) = (whole(&z), whole(&w[..3 * items]));
            let bias: Vec<f32> = (0..items).map(|i| (i % 3) as f32).collect();
            let row = |r: usize| -> Vec<f32> {
                let logit = |i: usize| (0..3).map(|c| z[3 * r + c] * w[3 * i + c]).sum::<f32>();
                (0..items).map(|i| logit(i) + bias[i]).collect()
            };
            let (z, w, bias) = (tensor(&z, 4), tensor(&w, items), tensor(&bias, 1));
            for decoder in [Decoder::Parallel, Decoder::FirstLogit, Decoder::MeanSlots] {
                let slots = decoder.slots(2);
                let read = if slots == 1 {
                    Tensor::cat(&[z.narrow(0, 0, 1).unwrap(), z.narrow(0, 2, 1).unwrap()], 0).unwrap()
                } else {
                    z.clone()
                };
                let got = with_logits(&read, &w, &bias, None, Some(block), |logits| {
                    decode::rank(logits, slots, &excluded, k, decoder)
                });
                let sorted_excluded = sorted(&excluded);
                let on_device = Logits {
                    z: read,
                    w: w.clone(),
                    bias: bias.flatten_all().unwrap(),
                    offset: None,
                    block: Some(block),
                };
                let on_device =
                    rank(&on_device, slots, &sorted_excluded, k, decoder).unwrap();
                let both = got.unwrap().unwrap();
                prop_assert_eq!(both.len(), on_device.len());
                for (a, b) in both.iter().flatten().zip(on_device.iter().flatten()) {
                    prop_assert_eq!(a.item, b.item);
                    prop_assert!(close(a.score, b.score), "{} {}", a.score, b.score);
                }
                for (user, (got, excluded)) in both.iter().zip(&excluded).enumerate() {
                    let rows = [row(2 * user), row(2 * user + 1)];
                    let full = decode::decode(&rows, excluded, k, decoder).unwrap();
                    let items = |list: &[Ranked]| list.iter().map(|r| r.item).collect::<Vec<_>>();
                    prop_assert_eq!(items(got), items(&full));
                    for (a, b) in got.iter().zip(&full) {
                        prop_assert!(close(a.score, b.score), "{} {}", a.score, b.score);
                    }
                }
            }
        }
    }
}
