//! The GPTQ algorithm on one linear layer (Frantar et al., 2023, algorithm 1).

use half::f16;
use rayon::prelude::*;

use super::cholesky::inverse_upper_factor;
use super::options::QuantizeOptions;
use crate::error::{Error, Result};

/// Number of columns between two updates of all columns to their right.
const BLOCK: usize = 128;
/// Number of output rows per task.
const ROWS: usize = 32;

/// A quantised linear layer, with `weight = (q - zero) * scale`.
#[derive(Debug, Clone)]
pub(crate) struct QuantizedLinear {
    /// Quantised weights in the original order of inputs, `(n, k)`.
    pub(crate) fields: Vec<u8>,
    /// Scales, `(n, groups)`.
    pub(crate) scales: Vec<f16>,
    /// Zero points, `(n, groups)`.
    pub(crate) zeros: Vec<u8>,
    /// Group of each input, `(k,)`.
    pub(crate) g_idx: Vec<u32>,
    /// Sum of squared errors of the layer's outputs on the calibration inputs, divided by the sum
    /// of squares of these outputs.
    pub(crate) relative_error: f64,
}

/// Quantises `weight: (n, k)` so that the outputs change least on inputs with second moment
/// `hessian: (k, k)`.
///
/// Columns are rounded one by one. After each column, the remaining columns are updated by the
/// inverse Hessian to compensate for its rounding error.
pub(crate) fn quantize_linear(
    weight: &[f32],
    n: usize,
    k: usize,
    hessian: &[f32],
    options: &QuantizeOptions,
) -> Result<QuantizedLinear> {
    let group_size = options.group_size.unwrap_or(k);
    let n_groups = k.div_ceil(group_size);
    let diagonal: Vec<f32> = (0..k).map(|i| hessian[i * k + i]).collect();
    let order = column_order(&diagonal, group_size, options.desc_act);
    // The group of the column at each position of the order.
    let group_at: Vec<usize> = if options.desc_act {
        (0..k).map(|place| place / group_size).collect()
    } else {
        order.iter().map(|&column| column / group_size).collect()
    };

    let factor = damped_factor(hessian, &diagonal, &order, options.damp_percent)?;
    let mut permuted = vec![0f32; n * k];
    permuted.par_chunks_exact_mut(k).zip(weight.par_chunks_exact(k)).for_each(|(to, from)| {
        for (to, &column) in to.iter_mut().zip(&order) {
            // An input that is always zero does not constrain its weight.
            *to = if diagonal[column] == 0.0 { 0.0 } else { from[column] };
        }
    });

    let mut fields = vec![0u8; n * k];
    let mut scales = vec![f16::ZERO; n * n_groups];
    let mut zeros = vec![0u8; n * n_groups];
    let tasks = permuted
        .par_chunks_mut(ROWS * k)
        .zip(fields.par_chunks_mut(ROWS * k))
        .zip(scales.par_chunks_mut(ROWS * n_groups))
        .zip(zeros.par_chunks_mut(ROWS * n_groups));
    tasks.for_each(|(((weight, fields), scales), zeros)| {
        let mut rows: Vec<Row> = weight
            .chunks_exact_mut(k)
            .zip(fields.chunks_exact_mut(k))
            .zip(scales.chunks_exact_mut(n_groups))
            .zip(zeros.chunks_exact_mut(n_groups))
            .map(|(((weight, fields), scales), zeros)| Row { weight, fields, scales, zeros })
            .collect();
        quantize_rows(&mut rows, &factor, &order, &group_at, options);
    });
    let g_idx = if options.desc_act {
        let mut g_idx = vec![0; k];
        for (place, &column) in order.iter().enumerate() {
            g_idx[column] = group_at[place] as u32;
        }
        g_idx
    } else {
        (0..k).map(|i| (i / group_size) as u32).collect()
    };
    let mut result = QuantizedLinear { fields, scales, zeros, g_idx, relative_error: 0.0 };
    result.relative_error = relative_error(weight, &result, n, k, n_groups, hessian);
    Ok(result)
}

struct Row<'a> {
    weight: &'a mut [f32],
    fields: &'a mut [u8],
    scales: &'a mut [f16],
    zeros: &'a mut [u8],
}

fn quantize_rows(
    rows: &mut [Row],
    factor: &[f32],
    order: &[usize],
    group_at: &[usize],
    options: &QuantizeOptions,
) {
    let k = order.len();
    let top = ((1u32 << options.bits) - 1) as f32;
    let mut errors = vec![[0f32; BLOCK]; rows.len()];
    for start in (0..k).step_by(BLOCK) {
        let end = k.min(start + BLOCK);
        for i in start..end {
            let u = &factor[i * k..(i + 1) * k];
            let group = group_at[i];
            let first_of_group = i == 0 || group_at[i - 1] != group;
            for (row, errors) in rows.iter_mut().zip(&mut errors) {
                if first_of_group {
                    // Columns of a group are consecutive in this order, but columns beyond the
                    // block do not have the block's updates yet.
                    let len = group_at[i..].iter().take_while(|&&g| g == group).count();
                    let mut members = row.weight[i..i + len].to_vec();
                    if i + len > end {
                        for (j, &error) in (start..i).zip(errors.iter()) {
                            let u = &factor[j * k..(j + 1) * k];
                            for (m, u) in members[end - i..].iter_mut().zip(&u[end..i + len]) {
                                *m -= error * u;
                            }
                        }
                    }
                    let (scale, zero) = range_of(&members, top, options.sym);
                    row.scales[group] = scale;
                    row.zeros[group] = zero;
                }
                let (scale, zero) = (row.scales[group].to_f32(), f32::from(row.zeros[group]));
                let q = ((row.weight[i] / scale).round_ties_even() + zero).clamp(0.0, top);
                row.fields[order[i]] = q as u8;
                let error = (row.weight[i] - (q - zero) * scale) / u[i];
                errors[i - start] = error;
                for (w, u) in row.weight[i + 1..end].iter_mut().zip(&u[i + 1..end]) {
                    *w -= error * u;
                }
            }
        }
        for (row, errors) in rows.iter_mut().zip(&errors) {
            for (i, &error) in (start..end).zip(errors.iter()) {
                let u = &factor[i * k + end..(i + 1) * k];
                for (w, u) in row.weight[end..].iter_mut().zip(u) {
                    *w -= error * u;
                }
            }
        }
    }
}

/// Returns the order in which columns are rounded: large inputs first, when many columns remain
/// that can compensate for the error.
///
/// Without `desc_act`, this order applies to whole groups, and to the columns within each group, so
/// that groups stay consecutive on disk.
fn column_order(diagonal: &[f32], group_size: usize, desc_act: bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..diagonal.len()).collect();
    let descending = |a: &usize, b: &usize| diagonal[*b].total_cmp(&diagonal[*a]).then(a.cmp(b));
    if desc_act {
        order.sort_by(descending);
        return order;
    }
    let mut groups: Vec<Vec<usize>> = order.chunks(group_size).map(<[usize]>::to_vec).collect();
    let largest = |group: &[usize]| group.iter().map(|&i| diagonal[i]).fold(0.0, f32::max);
    groups.sort_by(|a, b| largest(b).total_cmp(&largest(a)));
    for group in &mut groups {
        group.sort_by(descending);
    }
    groups.concat()
}

/// Returns the upper factor `U` of `(H + λ I)⁻¹ = Uᵀ U` in the given order of columns.
fn damped_factor(
    hessian: &[f32],
    diagonal: &[f32],
    order: &[usize],
    damp_percent: f64,
) -> Result<Vec<f32>> {
    let k = order.len();
    let mean = diagonal.iter().map(|&d| f64::from(d)).sum::<f64>() / k as f64;
    if !mean.is_finite() {
        return Err(Error::Input("the calibration inputs hold NaN or infinite values".into()));
    }
    // Increase the damping until the factorisation succeeds.
    for attempt in 0..8 {
        let damp = (damp_percent * f64::from(1u32 << attempt) * mean).max(f64::MIN_POSITIVE);
        let damped = |r: usize, c: usize| {
            let value = f64::from(hessian[order[r] * k + order[c]]);
            match diagonal[order[r]] {
                _ if r != c => value,
                // The input is always zero.
                0.0 => value + mean.max(1.0),
                _ => value + damp,
            }
        };
        if let Some(factor) = inverse_upper_factor(k, damped) {
            return Ok(factor);
        }
    }
    Err(Error::Input(
        "the Hessian of the calibration inputs cannot be factorised; use more text".into(),
    ))
}

/// Returns the scale (rounded as it will be stored) and the zero point of a group's values.
fn range_of(values: &[f32], top: f32, sym: bool) -> (f16, u8) {
    let (mut low, mut high) = values.iter().fold((0f32, 0f32), |(l, h), &v| (l.min(v), h.max(v)));
    if sym {
        high = high.max(-low);
        low = -high;
    }
    if low == high {
        (low, high) = (-1.0, 1.0);
    }
    let mut scale = f16::from_f32((high - low) / top);
    if scale.to_f32() == 0.0 || !scale.is_finite() {
        scale = if scale.is_finite() { f16::MIN_POSITIVE } else { f16::MAX };
    }
    let zero =
        if sym { (top + 1.0) / 2.0 } else { (-low / scale.to_f32()).round().clamp(0.0, top) };
    (scale, zero as u8)
}

/// Returns `Σ e H eᵀ / Σ w H wᵀ` over all rows `w`, where `e` is the change of the row by the
/// quantisation.
fn relative_error(
    weight: &[f32],
    q: &QuantizedLinear,
    n: usize,
    k: usize,
    n_groups: usize,
    hessian: &[f32],
) -> f64 {
    let (error, size) = (0..n)
        .into_par_iter()
        .map(|row| {
            let w = &weight[row * k..(row + 1) * k];
            let change: Vec<f32> = (0..k)
                .map(|i| {
                    let at = row * n_groups + q.g_idx[i] as usize;
                    w[i] - (f32::from(q.fields[row * k + i]) - f32::from(q.zeros[at]))
                        * q.scales[at].to_f32()
                })
                .collect();
            (energy(&change, hessian), energy(w, hessian))
        })
        .reduce(|| (0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
    error / size.max(f64::MIN_POSITIVE)
}

/// Returns `v H vᵀ`.
fn energy(v: &[f32], hessian: &[f32]) -> f64 {
    let k = v.len();
    v.iter()
        .enumerate()
        .map(|(i, &x)| {
            let row = &hessian[i * k..(i + 1) * k];
            let dot: f32 = row.iter().zip(v).map(|(h, v)| h * v).sum();
            f64::from(x) * f64::from(dot)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn problem(n: usize, k: usize) -> (Vec<f32>, Vec<f32>) {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let weight: Vec<f32> = (0..n * k).map(|_| rng.random_range(-1.0..1.0)).collect();
        // The inputs are correlated and have very different sizes.
        let mut hessian = vec![0f32; k * k];
        for _ in 0..4 * k {
            let common: f32 = rng.random_range(-1.0..1.0);
            let x: Vec<f32> = (0..k)
                .map(|i| (common + rng.random_range(-1.0..1.0)) * (1.0 + (i * 7 % 13) as f32))
                .collect();
            for i in 0..k {
                for j in 0..k {
                    hessian[i * k + j] += x[i] * x[j];
                }
            }
        }
        (weight, hessian)
    }

    fn identity(k: usize) -> Vec<f32> {
        (0..k * k).map(|i| f32::from(u8::from(i % (k + 1) == 0))).collect()
    }

    #[test]
    fn without_correlation_it_is_plain_rounding() {
        let (weight, _) = problem(5, 64);
        let options = QuantizeOptions { group_size: Some(32), ..Default::default() };
        let q = quantize_linear(&weight, 5, 64, &identity(64), &options).unwrap();
        for row in 0..5 {
            for group in 0..2 {
                let values = &weight[row * 64 + group * 32..][..32];
                let largest = values.iter().fold(0f32, |m, v| m.max(v.abs()));
                let scale = f16::from_f32(2.0 * largest / 15.0).to_f32();
                for (i, v) in values.iter().enumerate() {
                    let expected = ((v / scale).round_ties_even() + 8.0).clamp(0.0, 15.0);
                    assert_eq!(f32::from(q.fields[row * 64 + group * 32 + i]), expected);
                }
            }
        }
    }

    #[test]
    fn errors_are_made_up_for() {
        let (n, k) = (24, 160);
        let (weight, hessian) = problem(n, k);
        for (bits, sym, desc_act) in
            [(4, true, false), (4, false, true), (3, true, true), (2, false, false)]
        {
            let options =
                QuantizeOptions { bits, sym, desc_act, group_size: Some(64), ..Default::default() };
            let ours = quantize_linear(&weight, n, k, &hessian, &options).unwrap();
            // Measure plain rounding on the same inputs.
            let mut rounded = quantize_linear(&weight, n, k, &identity(k), &options).unwrap();
            rounded.relative_error = relative_error(&weight, &rounded, n, k, 3, &hessian);
            assert!(
                ours.relative_error < 0.6 * rounded.relative_error,
                "{bits} bits: {} against {}",
                ours.relative_error,
                rounded.relative_error
            );
            let mut counts = [0; 3];
            ours.g_idx.iter().for_each(|&g| counts[g as usize] += 1);
            assert_eq!(counts, [64, 64, 32]);
        }
    }

    #[test]
    fn dead_inputs_and_constant_rows_survive() {
        let (mut weight, mut hessian) = problem(3, 64);
        weight[64..128].fill(0.0);
        for i in 0..64 {
            hessian[i * 64 + 5] = 0.0;
            hessian[5 * 64 + i] = 0.0;
        }
        let q = quantize_linear(&weight, 3, 64, &hessian, &QuantizeOptions::default()).unwrap();
        assert!(q.scales.iter().all(|s| s.is_finite() && s.to_f32() > 0.0));
        assert!(q.relative_error < 0.1);
        let all_dead =
            quantize_linear(&weight, 3, 64, &vec![0.0; 64 * 64], &QuantizeOptions::default());
        assert!(all_dead.is_ok());
    }
}
