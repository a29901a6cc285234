//! Computes logits in blocks of items; the whole matrix is never in memory.

use std::ops::Range;

use candle_core::{Layout, Storage, Tensor};
use pulp::Arch;
use rayon::prelude::*;

use crate::Result;

/// Maximum number of items in a block, so that the logits of a few hundred rows stay in the
/// second-level cache.
const BLOCK: usize = 1024;
/// Maximum number of weights in a block (4 MB), so that the backward pass finds them in the
/// third-level cache.
const CACHED_WEIGHTS: usize = 1 << 20;
/// Maximum number of parts. A row is summed over the items of a block, then of a part, then over
/// the parts. This order depends neither on other rows nor on threads, so the sums of each row are
/// bit-identical if a batch is divided among ranks.
const PARTS: usize = 32;
/// Minimum number of items in a part.
const SMALLEST_PART: usize = 512;

/// The logits `Z Wᵀ + b + offset: (rows, items)` on the CPU, computed in blocks of items.
#[derive(Clone, Copy)]
pub(crate) struct Logits<'a> {
    /// Hidden states, `(rows, inner)`.
    pub(crate) z: &'a [f32],
    /// Item weights, `(items, inner)`.
    pub(crate) w: &'a [f32],
    /// Item biases, `(items,)`.
    bias: &'a [f32],
    /// Fixed logits that are added, `(rows, items)`.
    offset: Option<&'a [f32]>,
    pub(crate) rows: usize,
    pub(crate) items: usize,
    pub(crate) inner: usize,
    /// Number of items per block.
    pub(crate) block: usize,
    arch: Arch,
}

/// Returns the elements of a contiguous f32 tensor on the CPU.
fn f32_slice<'a>(storage: &'a Storage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    let Storage::Cpu(storage) = storage else {
        candle_core::bail!("the item logits are computed on the CPU only")
    };
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => candle_core::bail!("expected a contiguous tensor, got {layout:?}"),
    }
}

/// Calls `f` with the logits of contiguous `z: (rows, inner)`, `w: (items, inner)`, `bias:
/// (items,)` and `offset: (rows, items)`.
pub(crate) fn with_logits<R>(
    z: &Tensor,
    w: &Tensor,
    bias: &Tensor,
    offset: Option<&Tensor>,
    block: Option<usize>,
    f: impl FnOnce(&Logits<'_>) -> R,
) -> Result<R> {
    let (rows, inner) = z.dims2()?;
    let items = w.dims2()?.0;
    let fitting = (CACHED_WEIGHTS / inner.max(1)).clamp(64, BLOCK);
    let (z, z_layout) = z.storage_and_layout();
    let (w, w_layout) = w.storage_and_layout();
    let (bias, bias_layout) = bias.storage_and_layout();
    let offset = offset.map(Tensor::storage_and_layout);
    Ok(f(&Logits {
        z: f32_slice(&z, z_layout)?,
        w: f32_slice(&w, w_layout)?,
        bias: f32_slice(&bias, bias_layout)?,
        offset: offset.as_ref().map(|(o, layout)| f32_slice(o, layout)).transpose()?,
        rows,
        items,
        inner,
        block: block.unwrap_or(fitting),
        arch: Arch::new(),
    }))
}

impl Logits<'_> {
    /// Returns the number of items per part.
    pub(crate) fn part(&self) -> usize {
        self.items.div_ceil(PARTS).max(SMALLEST_PART)
    }

    /// Calls `f(state, items, logits)` for every block. `logits` is `(rows, items)` and may be
    /// overwritten. `parts` contains one state for each [`part`](Self::part) of the items, in
    /// order. Each thread processes one part at a time.
    pub(crate) fn walk<T: Send>(
        &self,
        parts: Vec<T>,
        f: impl Fn(&mut T, Range<usize>, &mut [f32]) + Sync,
    ) -> Vec<T> {
        let size = self.part();
        let run = |(n, mut state): (usize, T)| {
            let end = ((n + 1) * size).min(self.items);
            let mut memory = vec![0f32; self.rows * self.block.min(size)];
            for start in (n * size..end).step_by(self.block) {
                let range = start..(start + self.block).min(end);
                let logits = &mut memory[..self.rows * range.len()];
                self.block_of(range.clone(), logits);
                f(&mut state, range, logits);
            }
            state
        };
        parts.into_par_iter().enumerate().map(run).collect()
    }

    /// Creates one state per part.
    pub(crate) fn parts<T>(&self, new: impl Fn() -> T) -> Vec<T> {
        (0..self.items.div_ceil(self.part())).map(|_| new()).collect()
    }

    fn block_of(&self, range: Range<usize>, out: &mut [f32]) {
        let width = range.len();
        let w = &self.w[range.start * self.inner..range.end * self.inner];
        let z = Matrix { values: self.z, columns: self.inner };
        product(out, z, Matrix { values: w, columns: self.inner }.transposed(), false);
        let bias = &self.bias[range.clone()];
        self.arch.dispatch(
            #[inline(always)]
            || {
                for (r, row) in out.chunks_exact_mut(width).enumerate() {
                    row.iter_mut().zip(bias).for_each(|(l, b)| *l += b);
                    if let Some(offset) = self.offset {
                        let offset = &offset[r * self.items..][range.clone()];
                        row.iter_mut().zip(offset).for_each(|(l, o)| *l += o);
                    }
                }
            },
        );
    }

    /// Replaces every logit by `scale · exp(logit − shift)`.
    pub(crate) fn exp_in_place(&self, row: &mut [f32], shift: f32, scale: f32) {
        self.arch.dispatch(
            #[inline(always)]
            || row.iter_mut().for_each(|l| *l = scale * exp(*l - shift)),
        );
    }

    /// Computes `out += row` in f64, for sums over many rows.
    pub(crate) fn add_wide(&self, out: &mut [f64], row: &[f32]) {
        self.arch.dispatch(
            #[inline(always)]
            || out.iter_mut().zip(row).for_each(|(o, v)| *o += f64::from(*v)),
        );
    }

    /// Computes `out += row`.
    pub(crate) fn add(&self, out: &mut [f32], row: &[f32]) {
        self.arch.dispatch(
            #[inline(always)]
            || out.iter_mut().zip(row).for_each(|(o, v)| *o += v),
        );
    }
}

/// A row-major matrix, or the transpose of one.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) columns: usize,
}

/// A matrix with strides: `(rows, columns, row stride, column stride)`.
pub(crate) struct View<'a>(&'a [f32], [usize; 4]);

impl<'a> From<Matrix<'a>> for View<'a> {
    fn from(m: Matrix<'a>) -> Self {
        let rows = m.values.len() / m.columns.max(1);
        View(m.values, [rows, m.columns, m.columns, 1])
    }
}

impl<'a> Matrix<'a> {
    pub(crate) fn transposed(self) -> View<'a> {
        let View(values, [rows, columns, row, column]) = self.into();
        View(values, [columns, rows, column, row])
    }
}

/// Computes `out = a b` or `out += a b` on the current thread.
pub(crate) fn product<'a>(
    out: &mut [f32],
    a: impl Into<View<'a>>,
    b: impl Into<View<'a>>,
    accumulate: bool,
) {
    let (View(a, [m, k, a_row, a_column]), View(b, [inner, n, b_row, b_column])) =
        (a.into(), b.into());
    assert!(inner == k && out.len() == m * n, "({m}, {k}) x ({inner}, {n}) into {}", out.len());
    // SAFETY: the shape and strides of a view cover exactly its slice. `out` was checked to be (m,
    // n) and is borrowed mutably, so it overlaps neither view.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            accumulate,
            a.as_ptr(),
            a_column as isize,
            a_row as isize,
            b.as_ptr(),
            b_column as isize,
            b_row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            // The blocks of items are computed in parallel, so each product uses one thread.
            gemm::Parallelism::None,
        );
    }
}

/// Returns the maximum of a row and ignores NaN.
pub(crate) fn largest(row: &[f32]) -> f32 {
    Arch::new().dispatch(
        #[inline(always)]
        || largest_of(row),
    )
}

/// Number of lanes in sums and maxima, so that the compiler emits vector instructions.
const LANES: usize = 16;

#[inline(always)]
fn largest_of(row: &[f32]) -> f32 {
    let (lanes, rest) = row.as_chunks::<LANES>();
    let mut tops = [f32::NEG_INFINITY; LANES];
    for lane in lanes {
        for l in 0..LANES {
            tops[l] = if lane[l] > tops[l] { lane[l] } else { tops[l] };
        }
    }
    tops.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| a.max(b))
}

/// Log-sum-exp of a row that is read in parts: the maximum, and the sum relative to it.
#[derive(Clone, Copy)]
pub(crate) struct LogSumExp {
    max: f32,
    /// The sum `Σ exp(logit − max)`.
    sum: f64,
}

impl LogSumExp {
    pub(crate) fn new(max: f32, sum: f64) -> Self {
        Self { max, sum }
    }

    /// The value for a row without logits. The maximum is finite, so that `∞ − ∞` cannot occur.
    pub(crate) const EMPTY: Self = Self { max: f32::MIN, sum: 0.0 };

    pub(crate) fn of(row: &[f32]) -> Self {
        Arch::new().dispatch(
            #[inline(always)]
            || {
                let max = largest_of(row).max(f32::MIN);
                let (lanes, rest) = row.as_chunks::<LANES>();
                let mut sum: f64 = rest.iter().map(|&l| f64::from(exp(l - max))).sum();
                // Sum short runs in f32, and their totals in f64.
                for lanes in lanes.chunks(64) {
                    let mut sums = [0f32; LANES];
                    for lane in lanes {
                        for l in 0..LANES {
                            sums[l] += exp(lane[l] - max);
                        }
                    }
                    sum += sums.iter().map(|&s| f64::from(s)).sum::<f64>();
                }
                Self { max, sum }
            },
        )
    }

    /// Combines the log-sum-exp of two parts of a row.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        let max = self.max.max(other.max);
        let share = |part: Self| part.sum * f64::from(part.max - max).exp();
        Self { max, sum: share(self) + share(other) }
    }

    /// Returns whether any logit was NaN or `+∞`.
    pub(crate) fn is_nan(self) -> bool {
        self.sum.is_nan()
    }

    pub(crate) fn value(self) -> f64 {
        f64::from(self.max) + self.sum.ln()
    }
}

/// Computes `e^x` for `x` up to 88, within about two units in the last place; returns zero below
/// −87. Uses the Cephes polynomial without branches, so that loops over this function are
/// vectorised.
#[inline(always)]
#[allow(clippy::excessive_precision)]
fn exp(x: f32) -> f32 {
    // Adding 1.5 · 2²³ rounds to an integer, which is then in the lowest bits.
    let shifted = x * std::f32::consts::LOG2_E + 12_582_912.0;
    let n = shifted - 12_582_912.0;
    // Subtract n · ln 2, with ln 2 as the sum of two numbers; the first has few bits.
    let r = x - n * 0.693_359_375 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_15e-4;
    for c in [
        1.398_199_950_7e-3,
        8.333_451_907_3e-3,
        4.166_579_589_4e-2,
        1.666_666_545_9e-1,
        5.000_000_120_1e-1,
    ] {
        p = p * r + c;
    }
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    // A NaN fails the comparison and stays NaN.
    if x < -87.0 { 0.0 } else { (p * r * r + r + 1.0) * power }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units() {
        for step in 0..2_000_000 {
            let x = -90.0 + step as f32 * 6e-5;
            let exact = f64::from(x).exp();
            let got = f64::from(exp(x));
            if x < -87.0 {
                assert_eq!(got, 0.0, "{x}");
            } else {
                assert!((got / exact - 1.0).abs() < 2.5e-7, "{x}: {got} {exact}");
            }
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-1e30), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn parts_of_a_row_sum_to_the_whole() {
        let row: Vec<f32> = (0..5003).map(|i| (i as f32 * 0.37).sin() * 30.0).collect();
        let exact = row.iter().map(|&l| f64::from(l).exp()).sum::<f64>().ln();
        for cut in [0, 1, 15, 16, 700, 5003] {
            let (a, b) = row.split_at(cut);
            let both = LogSumExp::of(a).and(LogSumExp::of(b)).and(LogSumExp::EMPTY);
            assert!((both.value() - exact).abs() < 1e-6, "{} {exact}", both.value());
        }
        assert!(LogSumExp::of(&[0.0, f32::NAN, 1.0]).value().is_nan());
    }
}
