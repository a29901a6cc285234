use candle_core::{CpuStorage, CustomOp3, DType, Layout, Shape, Tensor, WithDType};

use crate::{Error, Result};

/// Logits held at once by the blocked loss: 16 M, 64 MB in f32.
const BLOCK_LOGITS: usize = 1 << 24;

/// Stands for minus infinity where a masked logit is overwritten; finite, so
/// that no `∞ − ∞` can arise.
const MASKED: f32 = -1e30;

/// Checks ids and counts the rows with targets.
fn check(items: usize, rows: usize, targets: &[Vec<u32>], masked: &[Vec<u32>]) -> Result<usize> {
    for (what, len) in [("rows of targets", targets.len()), ("rows of masked items", masked.len())]
    {
        if len != rows {
            return Err(Error::Shape { what, expected: format!("({rows})"), got: vec![len] });
        }
    }
    for (row, (targets, masked)) in targets.iter().zip(masked).enumerate() {
        for &item in targets.iter().chain(masked) {
            if item as usize >= items {
                return Err(Error::ItemOutOfRange { row, item, items });
            }
        }
        if let Some(&item) = targets.iter().find(|item| masked.contains(item)) {
            return Err(Error::MaskedTarget { row, item });
        }
    }
    match targets.iter().filter(|t| !t.is_empty()).count() {
        0 => Err(Error::NoTargets),
        active => Ok(active),
    }
}

/// Dense `(rows, width)` with `value(row)` at the listed items of `start..start + width`.
fn scatter<'a>(
    lists: impl Iterator<Item = &'a Vec<u32>>,
    value: impl Fn(&[u32]) -> f32,
    start: usize,
    width: usize,
    like: &Tensor,
) -> Result<Tensor> {
    let mut dense = Vec::new();
    let mut rows = 0;
    for list in lists {
        let base = rows * width;
        rows += 1;
        dense.resize(rows * width, 0f32);
        for &item in list {
            let item = item as usize;
            if (start..start + width).contains(&item) {
                dense[base + item - start] = value(list);
            }
        }
    }
    Ok(Tensor::from_vec(dense, (rows, width), like.device())?)
}

/// Share of each target in its row's loss.
fn share(list: &[u32]) -> f32 {
    1.0 / list.len() as f32
}

/// Logits of one block with the masked ones overwritten: `(n, width)`.
fn mask_block(logits: Tensor, masked: &[Vec<u32>], start: usize, width: usize) -> Result<Tensor> {
    if masked.iter().all(Vec::is_empty) {
        return Ok(logits);
    }
    let penalty = scatter(masked.iter(), |_| MASKED, start, width, &logits)?;
    Ok((logits + penalty)?)
}

/// Cross-entropy of logits `(n, items)` against the uniform distribution on
/// each row's target set, averaged over the rows that have targets; items of
/// `masked` are left out of the row's softmax. Differentiable in the logits.
///
/// The plain form of [`GllmHead::loss`](crate::GllmHead::loss), for logits that
/// are already there.
///
/// # Errors
/// Unknown items, a target that is masked, or no target at all.
pub fn set_cross_entropy(
    logits: &Tensor,
    targets: &[Vec<u32>],
    masked: &[Vec<u32>],
) -> Result<Tensor> {
    let (rows, items) = logits.dims2()?;
    let active = check(items, rows, targets, masked)?;
    let logits = mask_block(logits.clone(), masked, 0, items)?;
    let weights = scatter(targets.iter(), share, 0, items, &logits)?;
    let used = weights.sum(1)?;
    let lse = (logits.log_sum_exp(1)? * used)?.sum_all()?;
    let hit = (logits * weights)?.sum_all()?;
    Ok(((lse - hit)? / active as f64)?)
}

/// [`set_cross_entropy`] of `Z Wᵀ + b + offset` without ever holding all logits: items
/// are walked in blocks, forward and again backward.
pub(crate) fn blocked_cross_entropy(
    z: &Tensor,
    w: &Tensor,
    bias: &Tensor,
    offset: Option<&Tensor>,
    targets: &[Vec<u32>],
    masked: &[Vec<u32>],
) -> Result<Tensor> {
    let (rows, _) = z.dims2()?;
    let block = (BLOCK_LOGITS / rows.max(1)).max(1);
    blocked_cross_entropy_with(z, w, bias, offset, targets, masked, block)
}

fn blocked_cross_entropy_with(
    z: &Tensor,
    w: &Tensor,
    bias: &Tensor,
    offset: Option<&Tensor>,
    targets: &[Vec<u32>],
    masked: &[Vec<u32>],
    block: usize,
) -> Result<Tensor> {
    let (rows, _) = z.dims2()?;
    let (items, _) = w.dims2()?;
    let active = check(items, rows, targets, masked)?;
    let op = BlockedCrossEntropy {
        targets: targets.to_vec(),
        masked: masked.to_vec(),
        offset: offset.map(Tensor::detach),
        block,
        active,
        log_sum_exp: Vec::new(),
        value: 0.0,
    };
    let op = op.forward(&z.detach(), &w.detach(), &bias.detach())?;
    Ok(z.contiguous()?.apply_op3(&w.contiguous()?, &bias.contiguous()?, op)?)
}

struct BlockedCrossEntropy {
    targets: Vec<Vec<u32>>,
    masked: Vec<Vec<u32>>,
    /// Fixed logits `(rows, items)` to be added.
    offset: Option<Tensor>,
    block: usize,
    active: usize,
    log_sum_exp: Vec<f32>,
    value: f32,
}

impl BlockedCrossEntropy {
    /// Masked logits of the items `start..start + width`.
    fn logits(
        &self,
        z: &Tensor,
        w: &Tensor,
        bias: &Tensor,
        start: usize,
        width: usize,
    ) -> Result<Tensor> {
        let logits = z.matmul(&w.narrow(0, start, width)?.t()?)?;
        let mut logits = logits.broadcast_add(&bias.narrow(0, start, width)?)?;
        if let Some(offset) = &self.offset {
            logits = (logits + offset.narrow(1, start, width)?)?;
        }
        mask_block(logits, &self.masked, start, width)
    }

    fn blocks(&self, items: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let block = self.block;
        (0..items).step_by(block).map(move |start| (start, block.min(items - start)))
    }

    /// Computes the value, and per row the log of the softmax denominator.
    fn forward(mut self, z: &Tensor, w: &Tensor, bias: &Tensor) -> Result<Self> {
        let (rows, _) = z.dims2()?;
        let mut max = vec![f32::NEG_INFINITY; rows];
        let mut sum = vec![0f64; rows];
        let mut hit = vec![0f64; rows];
        for (start, width) in self.blocks(w.dims2()?.0) {
            let logits = self.logits(z, w, bias, start, width)?;
            let top = logits.max(1)?;
            let sums = logits.broadcast_sub(&top.unsqueeze(1)?)?.exp()?.sum(1)?;
            let weights = scatter(self.targets.iter(), share, start, width, &logits)?;
            let hits = (logits * weights)?.sum(1)?;
            let (top, sums, hits): (Vec<f32>, Vec<f32>, Vec<f32>) =
                (top.to_vec1()?, sums.to_vec1()?, hits.to_vec1()?);
            for r in 0..rows {
                let new = max[r].max(top[r]);
                sum[r] = sum[r] * f64::from(max[r] - new).exp()
                    + f64::from(sums[r]) * f64::from(top[r] - new).exp();
                max[r] = new;
                hit[r] += f64::from(hits[r]);
            }
        }
        self.log_sum_exp =
            max.iter().zip(&sum).map(|(&m, s)| (f64::from(m) + s.ln()) as f32).collect();
        let total: f64 = (0..rows)
            .filter(|&r| !self.targets[r].is_empty())
            .map(|r| f64::from(max[r]) + sum[r].ln() - hit[r])
            .sum();
        self.value = (total / self.active as f64) as f32;
        Ok(self)
    }

    fn backward(
        &self,
        z: &Tensor,
        w: &Tensor,
        bias: &Tensor,
        grad: &Tensor,
    ) -> Result<(Tensor, Option<Tensor>, Option<Tensor>)> {
        let (rows, _) = z.dims2()?;
        let lse = Tensor::new(self.log_sum_exp.as_slice(), z.device())?.unsqueeze(1)?;
        let used: Vec<f32> =
            self.targets.iter().map(|t| if t.is_empty() { 0.0 } else { 1.0 }).collect();
        let used = Tensor::from_vec(used, (rows, 1), z.device())?;
        let scale = (grad / self.active as f64)?;
        let mut dz: Option<Tensor> = None;
        let (mut dw, mut db) = (Vec::new(), Vec::new());
        for (start, width) in self.blocks(w.dims2()?.0) {
            let logits = self.logits(z, w, bias, start, width)?;
            let weights = scatter(self.targets.iter(), share, start, width, &logits)?;
            let softmax = logits.broadcast_sub(&lse)?.exp()?.broadcast_mul(&used)?;
            let d = (softmax - weights)?.broadcast_mul(&scale)?;
            let part = d.matmul(&w.narrow(0, start, width)?)?;
            dz = Some(match dz {
                Some(sum) => (sum + part)?,
                None => part,
            });
            // A frozen side (tied head, no bias) needs no gradient of its size.
            if w.track_op() {
                dw.push(d.t()?.matmul(z)?);
            }
            if bias.track_op() {
                db.push(d.sum(0)?);
            }
        }
        let join = |parts: &[Tensor]| -> Result<Option<Tensor>> {
            Ok(if parts.is_empty() { None } else { Some(Tensor::cat(parts, 0)?) })
        };
        let dz = match dz {
            Some(dz) => dz,
            None => z.zeros_like()?,
        };
        Ok((dz, join(&dw)?, join(&db)?))
    }
}

impl CustomOp3 for BlockedCrossEntropy {
    fn name(&self) -> &'static str {
        "blocked-cross-entropy"
    }

    // The value was computed with ordinary tensor operations, on whatever
    // device; this only puts it into the graph.
    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok((f32::to_cpu_storage_owned(vec![self.value]), Shape::from(())))
    }

    fn bwd(
        &self,
        z: &Tensor,
        w: &Tensor,
        bias: &Tensor,
        _value: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.to_dtype(DType::F32)?;
        let (dz, dw, db) = self
            .backward(z, w, bias, &grad)
            .map_err(|e| candle_core::Error::Msg(format!("blocked-cross-entropy: {e}")))?;
        Ok((Some(dz.detach()), dw.map(|t| t.detach()), db.map(|t| t.detach())))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};
    use glta_projector::normal_var;
    use proptest::prelude::*;

    use super::*;

    fn value(t: &Tensor) -> f32 {
        t.to_scalar().unwrap()
    }

    #[test]
    fn worked_by_hand() {
        // Row 0: softmax over items 0 and 2 (item 1 masked), target 2.
        let logits = Tensor::new(&[[0f32, 9.0, 1.0], [1.0, 2.0, 3.0]], &Device::Cpu).unwrap();
        let loss = set_cross_entropy(&logits, &[vec![2], vec![0, 1]], &[vec![1], vec![]]).unwrap();
        let row0 = (1.0 + (-1f64).exp()).ln();
        let lse = (1f64.exp() + 2f64.exp() + 3f64.exp()).ln();
        let row1 = lse - 1.5;
        assert!((f64::from(value(&loss)) - (row0 + row1) / 2.0).abs() < 1e-6);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn blocks_equal_the_plain_form(
            rows in 1usize..5,
            items in 2usize..40,
            block in 1usize..50,
            seed in 0u64..1000,
        ) {
            let z = normal_var((rows, 3), 1.5, seed, &Device::Cpu).unwrap();
            let w = normal_var((items, 3), 1.5, seed + 1, &Device::Cpu).unwrap();
            let b = normal_var(items, 1.0, seed + 2, &Device::Cpu).unwrap();
            let pick = |r: usize, n: usize| (seed as usize * 31 + r * 17 + n * 7) % items;
            let targets: Vec<Vec<u32>> = (0..rows)
                .map(|r| {
                    let mut t: Vec<u32> =
                        (0..(r + seed as usize) % 4).map(|n| pick(r, n) as u32).collect();
                    t.sort_unstable();
                    t.dedup();
                    t
                })
                .collect();
            let masked: Vec<Vec<u32>> = (0..rows)
                .map(|r| {
                    (0..3)
                        .map(|n| pick(r + 5, n) as u32)
                        .filter(|i| !targets[r].contains(i))
                        .collect()
                })
                .collect();
            prop_assume!(targets.iter().any(|t| !t.is_empty()));

            let offset = (seed % 2 == 0)
                .then(|| normal_var((rows, items), 1.0, seed + 3, &Device::Cpu).unwrap());
            let offset = offset.as_ref().map(|o| o.as_tensor());
            let mut logits = z.matmul(&w.t().unwrap()).unwrap().broadcast_add(&b).unwrap();
            if let Some(offset) = offset {
                logits = (logits + offset).unwrap();
            }
            let plain = set_cross_entropy(&logits, &targets, &masked).unwrap();
            let blocked =
                blocked_cross_entropy_with(&z, &w, &b, offset, &targets, &masked, block).unwrap();
            prop_assert!((value(&plain) - value(&blocked)).abs() < 1e-5);
            let plain = plain.backward().unwrap();
            let blocked = blocked.backward().unwrap();
            // Both round every logit, a sum of four terms, to its own last digits.
            let largest = value(&logits.abs().unwrap().max_all().unwrap());
            let tolerance = 5e-7 * (1.0 + largest);
            for var in [&z, &w, &b] {
                let difference = (plain.get(var).unwrap() - blocked.get(var).unwrap()).unwrap();
                let worst = value(&difference.abs().unwrap().max_all().unwrap());
                prop_assert!(worst < tolerance, "{worst} of {tolerance}");
            }
        }
    }

    #[test]
    fn gradient_agrees_with_finite_differences() {
        let z = normal_var((2, 3), 1.0, 1, &Device::Cpu).unwrap();
        let w = normal_var((6, 3), 1.0, 2, &Device::Cpu).unwrap();
        let b = normal_var(6, 1.0, 3, &Device::Cpu).unwrap();
        let targets = [vec![1, 5], vec![3]];
        let masked = [vec![0], vec![]];
        let loss = |z: &Var| {
            value(&blocked_cross_entropy_with(z, &w, &b, None, &targets, &masked, 4).unwrap())
        };
        let out = blocked_cross_entropy_with(&z, &w, &b, None, &targets, &masked, 4).unwrap();
        let grad: Vec<f32> =
            out.backward().unwrap().get(&z).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let base: Vec<f32> = z.flatten_all().unwrap().to_vec1().unwrap();
        for (i, g) in grad.iter().enumerate() {
            let shifted = |eps: f32| {
                let mut values = base.clone();
                values[i] += eps;
                loss(&Var::from_vec(values, (2, 3), &Device::Cpu).unwrap())
            };
            let numeric = (shifted(1e-2) - shifted(-1e-2)) / 2e-2;
            assert!((numeric - g).abs() < 2e-4, "{i}: {numeric} {g}");
        }
    }

    #[test]
    fn refuses_unknown_and_masked_targets() {
        let logits = Tensor::zeros((1, 3), DType::F32, &Device::Cpu).unwrap();
        let loss = |t: Vec<u32>, m: Vec<u32>| set_cross_entropy(&logits, &[t], &[m]).unwrap_err();
        assert!(matches!(loss(vec![3], vec![]), Error::ItemOutOfRange { item: 3, items: 3, .. }));
        assert!(matches!(loss(vec![1], vec![1]), Error::MaskedTarget { item: 1, .. }));
        assert!(matches!(loss(vec![], vec![]), Error::NoTargets));
    }
}
