use candle_core::{CpuStorage, CustomOp3, DType, Layout, Shape, Tensor, WithDType};

use crate::blocks::{LogSumExp, Logits, Matrix, product, with_logits};
use crate::device;
use crate::lists::{MASKED, inside, share, sorted};
use crate::{Error, Result};

/// Returns the number of rows with targets. Returns an error if the number of lists is wrong, an id
/// is unknown, a target is masked, or no row has a target.
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

/// Returns a dense `(rows, items)` tensor. Each listed item of a row adds `value(list)` to its
/// entry.
fn scatter(lists: &[Vec<u32>], value: impl Fn(&[u32]) -> f32, like: &Tensor) -> Result<Tensor> {
    let (rows, items) = like.dims2()?;
    let mut dense = vec![0f32; rows * items];
    for (row, list) in dense.chunks_exact_mut(items.max(1)).zip(lists) {
        list.iter().for_each(|&item| row[item as usize] += value(list));
    }
    Ok(Tensor::from_vec(dense, (rows, items), like.device())?)
}

/// Returns the set cross-entropy of logits `(n, items)`: the cross-entropy between each row's
/// softmax and the uniform distribution over the row's targets, averaged over the rows with
/// targets. Items of `masked` are left out of the softmax. The result is differentiable with
/// respect to the logits.
///
/// [`GllmHead::loss`](crate::GllmHead::loss) computes the same value without all logits in memory.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use glta_gllm::set_cross_entropy;
///
/// let logits = Tensor::new(&[[0f32, 0.0, 0.0]], &Device::Cpu)?;
/// // One of three items is masked, so the loss of the target is ln 2.
/// let loss = set_cross_entropy(&logits, &[vec![1]], &[vec![0]])?;
/// assert!((loss.to_scalar::<f32>()? - 2f32.ln()).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Returns an error if an item is unknown, a target is masked, or no row has a target.
pub fn set_cross_entropy(
    logits: &Tensor,
    targets: &[Vec<u32>],
    masked: &[Vec<u32>],
) -> Result<Tensor> {
    let (rows, items) = logits.dims2()?;
    let active = check(items, rows, targets, masked)?;
    let logits = (logits + scatter(masked, |_| MASKED, logits)?)?;
    let weights = scatter(targets, share, &logits)?;
    let used = weights.sum(1)?;
    let lse = (logits.log_sum_exp(1)? * used)?.sum_all()?;
    let hit = (logits * weights)?.sum_all()?;
    Ok(((lse - hit)? / active as f64)?)
}

/// Computes [`set_cross_entropy`] of `Z Wᵀ + b + offset` in blocks of items, forward and backward.
/// The sum of the row losses is divided by `active`. `block` is the number of items per block;
/// `None` uses the largest number that fits the cache.
#[allow(clippy::too_many_arguments)]
pub(crate) fn blocked_cross_entropy(
    z: &Tensor,
    w: &Tensor,
    bias: &Tensor,
    offset: Option<&Tensor>,
    targets: &[Vec<u32>],
    masked: &[Vec<u32>],
    active: usize,
    block: Option<usize>,
) -> Result<Tensor> {
    check(w.dims2()?.0, z.dims2()?.0, targets, masked)?;
    let (z, w, bias, offset) = (z.clone(), w.clone(), bias.clone(), offset.cloned());
    let logits = device::Logits { z, w, bias, offset, block };
    blocked(logits, targets, masked, mean_over(active, targets))
}

/// Returns the row weights of a mean over `active` rows; zero for rows without targets.
pub(crate) fn mean_over(active: usize, targets: &[Vec<u32>]) -> Vec<f32> {
    let weight = |t: &Vec<u32>| if t.is_empty() { 0.0 } else { 1.0 / active as f32 };
    targets.iter().map(weight).collect()
}

/// Returns the weighted cross-entropy of the rows of `Z Wᵀ + b` against one target each: `Σ_r
/// weights[r] · (ln Σ_i exp(z_r·w_i + b_i) − z_r·w_t − b_t)`.
///
/// The result is differentiable with respect to `z: (n, d)`, `w: (m, d)` and `bias: (m)`. It is
/// computed in blocks of rows of `w`. With rows of norm one, this is InfoNCE.
///
/// # Errors
/// Returns an error if shapes do not match, a target is outside `w`, or there is no row.
pub fn weighted_cross_entropy(
    z: &Tensor,
    w: &Tensor,
    bias: &Tensor,
    targets: &[u32],
    weights: &[f32],
) -> Result<Tensor> {
    let (rows, items) = (z.dims2()?.0, w.dims2()?.0);
    let targets: Vec<Vec<u32>> = targets.iter().map(|&target| vec![target]).collect();
    let masked = vec![Vec::new(); targets.len()];
    check(items, rows, &targets, &masked)?;
    for (what, got, len) in
        [("weights of rows", weights.len(), rows), ("biases", bias.elem_count(), items)]
    {
        if got != len {
            return Err(Error::Shape { what, expected: format!("({len})"), got: vec![got] });
        }
    }
    let (z, w, bias) = (z.clone(), w.clone(), bias.clone());
    let logits = device::Logits { z, w, bias, offset: None, block: None };
    blocked(logits, &targets, &masked, weights.to_vec())
}

/// Computes the weighted sum of the row losses. Call this only with arguments that [`check`]
/// accepts.
fn blocked(
    logits: device::Logits,
    targets: &[Vec<u32>],
    masked: &[Vec<u32>],
    weights: Vec<f32>,
) -> Result<Tensor> {
    let device::Logits { z, w, bias, offset, block } = logits;
    let (z, w, bias) = (z.contiguous()?, w.contiguous()?, bias.contiguous()?);
    let offset = offset.map(|offset| offset.detach().contiguous()).transpose()?;
    if !z.device().is_cpu() {
        let logits = device::Logits { z, w, bias, offset, block };
        return device::cross_entropy(logits, sorted(targets), sorted(masked), weights);
    }
    let mut op = BlockedCrossEntropy {
        targets: sorted(targets),
        masked: sorted(masked),
        bias: bias.detach().to_dtype(DType::F32)?,
        offset,
        block,
        weights,
        log_sum_exp: Vec::new(),
        value: 0.0,
    };
    let (log_sum_exp, value) =
        with_logits(&z, &w, &op.bias, op.offset.as_ref(), block, |logits| op.forward(logits))?;
    (op.log_sum_exp, op.value) = (log_sum_exp, value);
    Ok(z.apply_op3(&w, &bias, op)?)
}

struct BlockedCrossEntropy {
    /// Targets of each row, ascending.
    targets: Vec<Vec<u32>>,
    /// Masked items of each row, ascending.
    masked: Vec<Vec<u32>>,
    /// Item biases `(items)` in f32. The gradient has the dtype of the operation's argument, which
    /// can be f64.
    bias: Tensor,
    /// Fixed logits that are added, `(rows, items)`.
    offset: Option<Tensor>,
    block: Option<usize>,
    /// Weight of each row's loss; zero for rows without targets.
    weights: Vec<f32>,
    log_sum_exp: Vec<f32>,
    value: f32,
}

/// Gradients with respect to `z`, `w` and the bias.
type Gradients = (Vec<f32>, Option<Vec<f32>>, Option<Vec<f64>>);

impl BlockedCrossEntropy {
    /// Returns the logarithm of each row's softmax denominator, and the loss.
    fn forward(&self, logits: &Logits<'_>) -> (Vec<f32>, f32) {
        let empty = || vec![(LogSumExp::EMPTY, 0f64); logits.rows];
        let parts = logits.walk(logits.parts(empty), |rows, range, block| {
            for (r, row) in block.chunks_exact_mut(range.len()).enumerate() {
                inside(&self.masked[r], &range).for_each(|at| row[at] = MASKED);
                let hit: f64 = inside(&self.targets[r], &range).map(|at| f64::from(row[at])).sum();
                rows[r].0 = rows[r].0.and(LogSumExp::of(row));
                rows[r].1 += hit;
            }
        });
        let mut total = 0.0;
        let mut log_sum_exp = Vec::with_capacity(logits.rows);
        for (r, (targets, &weight)) in self.targets.iter().zip(&self.weights).enumerate() {
            let sum = parts.iter().fold(LogSumExp::EMPTY, |sum, part| sum.and(part[r].0)).value();
            let hit: f64 = parts.iter().map(|part| part[r].1).sum();
            if !targets.is_empty() {
                total += f64::from(weight) * (sum - hit / targets.len() as f64);
            }
            log_sum_exp.push(sum as f32);
        }
        (log_sum_exp, total as f32)
    }

    /// Computes the gradients times `grad`. The gradients of the item weights and of the bias are
    /// computed only if `w` and `bias` are true.
    fn backward(&self, logits: &Logits<'_>, grad: f32, w: bool, bias: bool) -> Gradients {
        let (rows, items, inner) = (logits.rows, logits.items, logits.inner);
        // Frozen weights (tied head, no bias) need no gradient.
        let mut dw = w.then(|| vec![0f32; items * inner]);
        let mut db = bias.then(|| vec![0f64; items]);
        let part = logits.part();
        let mut dw_parts = dw.iter_mut().flat_map(|dw| dw.chunks_mut((part * inner).max(1)));
        let mut db_parts = db.iter_mut().flat_map(|db| db.chunks_mut(part));
        let mut states = Vec::new();
        for start in (0..items).step_by(part) {
            let dz = vec![0f32; rows * inner];
            states.push((start, dz, dw_parts.next(), db_parts.next()));
        }
        let parts = logits.walk(states, |(first, dz, dw, db), range, block| {
            let width = range.len();
            let at = range.start - *first;
            for (r, row) in block.chunks_exact_mut(width).enumerate() {
                let (targets, scale) = (&self.targets[r], grad * self.weights[r]);
                if targets.is_empty() {
                    row.fill(0.0);
                    continue;
                }
                logits.exp_in_place(row, self.log_sum_exp[r], scale);
                inside(&self.masked[r], &range).for_each(|at| row[at] = 0.0);
                let share = scale * share(targets);
                inside(targets, &range).for_each(|at| row[at] -= share);
                if let Some(db) = db {
                    logits.add_wide(&mut db[at..at + width], row);
                }
            }
            let d = Matrix { values: block, columns: width };
            let w = &logits.w[range.start * inner..range.end * inner];
            product(dz, d, Matrix { values: w, columns: inner }, true);
            if let Some(dw) = dw {
                let z = Matrix { values: logits.z, columns: inner };
                product(&mut dw[at * inner..(at + width) * inner], d.transposed(), z, false);
            }
        });
        let mut dz = vec![0f32; rows * inner];
        parts.iter().for_each(|(_, part, ..)| logits.add(&mut dz, part));
        drop(parts);
        (dz, dw, db)
    }
}

impl CustomOp3 for BlockedCrossEntropy {
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
        let _span = tracing::debug_span!("head backward").entered();
        let grad = grad.to_dtype(DType::F32)?.to_scalar::<f32>()?;
        let (dz, dw, db) =
            with_logits(z, w, &self.bias, self.offset.as_ref(), self.block, |logits| {
                self.backward(logits, grad, w.track_op(), bias.track_op())
            })
            .map_err(|e| candle_core::Error::Msg(format!("blocked-cross-entropy: {e}")))?;
        let like = |values: Option<Vec<f32>>, of: &Tensor| {
            values.map(|values| Tensor::from_vec(values, of.dims(), of.device())).transpose()
        };
        let db = match db {
            None => None,
            Some(db) => {
                let db = Tensor::from_vec(db, bias.dims(), bias.device())?;
                Some(db.to_dtype(bias.dtype())?)
            }
        };
        Ok((like(Some(dz), z)?, like(dw, w)?, db))
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
        // Row 0 is a softmax over items 0 and 2, because item 1 is masked; its target is item 2.
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
            let active = targets.iter().filter(|t| !t.is_empty()).count();
            let blocked = blocked_cross_entropy(
                &z, &w, &b, offset, &targets, &masked, active, Some(block),
            )
            .unwrap();
            prop_assert!((value(&plain) - value(&blocked)).abs() < 1e-6 * value(&plain).max(1.0));
            let on_device = device::Logits {
                z: z.as_tensor().clone(),
                w: w.as_tensor().clone(),
                bias: b.as_tensor().clone(),
                offset: offset.cloned(),
                block: Some(block),
            };
            let weights = mean_over(active, &targets);
            let on_device =
                device::cross_entropy(on_device, sorted(&targets), sorted(&masked), weights).unwrap();
            prop_assert!((value(&plain) - value(&on_device)).abs() < 2e-6 * value(&plain).max(1.0));
            let plain = plain.backward().unwrap();
            let blocked = blocked.backward().unwrap();
            let on_device = on_device.backward().unwrap();
            // Both forms round every logit, a sum of four terms, to f32.
            let largest = value(&logits.abs().unwrap().max_all().unwrap());
            let tolerance = 5e-7 * (1.0 + largest);
            for var in [&z, &w, &b] {
                let difference = (plain.get(var).unwrap() - blocked.get(var).unwrap()).unwrap();
                let worst = value(&difference.abs().unwrap().max_all().unwrap());
                prop_assert!(worst < tolerance, "{worst} of {tolerance}");
                let difference = (plain.get(var).unwrap() - on_device.get(var).unwrap()).unwrap();
                let worst = value(&difference.abs().unwrap().max_all().unwrap());
                prop_assert!(worst < 2.0 * tolerance, "{worst} of {tolerance} on a device");
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
        let blocked = |z: &Var| {
            blocked_cross_entropy(z, &w, &b, None, &targets, &masked, 2, Some(4)).unwrap()
        };
        let loss = |z: &Var| value(&blocked(z));
        let out = blocked(&z);
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
    fn weights_count_rows_as_often() {
        let z = normal_var((3, 4), 1.0, 4, &Device::Cpu).unwrap();
        let w = normal_var((7, 4), 1.0, 5, &Device::Cpu).unwrap();
        let b = normal_var(7, 1.0, 6, &Device::Cpu).unwrap();
        let weighted = weighted_cross_entropy(&z, &w, &b, &[6, 0, 3], &[1.0, 0.0, 2.5]).unwrap();
        // The second row has weight zero, the third has weight two and a half.
        let logits = z.matmul(&w.t().unwrap()).unwrap().broadcast_add(&b).unwrap();
        let of = |row, target| {
            let row = logits.narrow(0, row, 1).unwrap();
            set_cross_entropy(&row, &[vec![target]], &[vec![]]).unwrap()
        };
        let plain = (of(0, 6) + (of(2, 3) * 2.5).unwrap()).unwrap();
        assert!((value(&weighted) - value(&plain)).abs() < 1e-5);
        let (weighted, plain) = (weighted.backward().unwrap(), plain.backward().unwrap());
        for var in [&z, &w, &b] {
            let difference = (weighted.get(var).unwrap() - plain.get(var).unwrap()).unwrap();
            assert!(value(&difference.abs().unwrap().max_all().unwrap()) < 1e-5);
        }
        let fails = |t: &[u32], n| weighted_cross_entropy(&z, &w, &b, t, &vec![1.0; n]).is_err();
        assert!(fails(&[7, 0, 0], 3) && fails(&[0, 0], 3) && fails(&[0, 0, 0], 2));
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
