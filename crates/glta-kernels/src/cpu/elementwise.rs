//! The kernels of RMSNorm, SwiGLU and RoPE, each with its derivative.

use rayon::prelude::*;

use crate::simd::{Simd, SimdLevel, dispatch};

/// Number of rows per task.
const ROWS: usize = 16;

/// Computes `y = x / rms(x) * w` for each row of `w.len()` elements.
pub(crate) fn rms_norm(level: SimdLevel, x: &[f32], w: &[f32], eps: f32, y: &mut [f32]) {
    let n = w.len();
    assert!(x.len() == y.len() && x.len().is_multiple_of(n));
    x.par_chunks(ROWS * n).zip(y.par_chunks_mut(ROWS * n)).for_each(|(x, y)| {
        for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
            // SAFETY: the rows have the length of `w`.
            unsafe { rms_norm_row(level, x, w, eps, y) }
        }
    });
}

/// Adds `dL/dx` of [`rms_norm`] to `dx`, given `dy = dL/dy`: `r (w dy) - x r³/n Σ x w dy` with `r =
/// 1 / rms(x)`.
pub(crate) fn rms_norm_backward(
    level: SimdLevel,
    x: &[f32],
    w: &[f32],
    eps: f32,
    dy: &[f32],
    dx: &mut [f32],
) {
    let n = w.len();
    assert!(x.len() == dx.len() && dy.len() == dx.len() && x.len().is_multiple_of(n));
    x.par_chunks(ROWS * n).zip(dy.par_chunks(ROWS * n)).zip(dx.par_chunks_mut(ROWS * n)).for_each(
        |((x, dy), dx)| {
            for ((x, dy), dx) in
                x.chunks_exact(n).zip(dy.chunks_exact(n)).zip(dx.chunks_exact_mut(n))
            {
                // SAFETY: the rows have the length of `w`.
                unsafe { rms_norm_backward_row(level, x, w, eps, dy, dx) }
            }
        },
    );
}

/// Computes `h = silu(gate) * up` per row, with `gate_up: (rows, 2 n)` and `h: (rows, n)`.
pub(crate) fn swiglu(level: SimdLevel, gate_up: &[f32], n: usize, h: &mut [f32]) {
    assert!(gate_up.len() == 2 * h.len() && h.len().is_multiple_of(n));
    gate_up.par_chunks(ROWS * 2 * n).zip(h.par_chunks_mut(ROWS * n)).for_each(|(gu, h)| {
        for (gu, h) in gu.chunks_exact(2 * n).zip(h.chunks_exact_mut(n)) {
            // SAFETY: the rows have the lengths that the function states.
            unsafe { swiglu_row(level, gu, h) }
        }
    });
}

/// Computes the gradient with respect to the input of [`swiglu`] at `gate_up: (rows, 2 n)`, given
/// `dh: (rows, n)`.
pub(crate) fn swiglu_backward(
    level: SimdLevel,
    gate_up: &[f32],
    n: usize,
    dh: &[f32],
    d_gate_up: &mut [f32],
) {
    assert!(gate_up.len() == 2 * dh.len() && d_gate_up.len() == gate_up.len());
    gate_up
        .par_chunks(ROWS * 2 * n)
        .zip(dh.par_chunks(ROWS * n))
        .zip(d_gate_up.par_chunks_mut(ROWS * 2 * n))
        .for_each(|((gu, dh), d)| {
            for ((gu, dh), d) in
                gu.chunks_exact(2 * n).zip(dh.chunks_exact(n)).zip(d.chunks_exact_mut(2 * n))
            {
                // SAFETY: the rows have the lengths that the function states.
                unsafe { swiglu_backward_row(level, gu, dh, d) }
            }
        });
}

/// Rotates the pairs `(i, i + d/2)` of the first `heads` heads of every row in place, by the angles
/// of the row's position. If `inverse` is set, rotates backwards.
///
/// `x` is `(rows, stride)`; `cos` and `sin` are `(max position, head_dim / 2)`.
#[allow(clippy::too_many_arguments)]
pub(crate) fn rope(
    x: &mut [f32],
    stride: usize,
    heads: usize,
    head_dim: usize,
    positions: &[u32],
    cos: &[f32],
    sin: &[f32],
    inverse: bool,
) {
    let half = head_dim / 2;
    assert!(x.len() == positions.len() * stride && heads * head_dim <= stride);
    x.par_chunks_mut(ROWS * stride).zip(positions.par_chunks(ROWS)).for_each(|(x, positions)| {
        for (row, &position) in x.chunks_exact_mut(stride).zip(positions) {
            let at = position as usize * half;
            let (cos, sin) = (&cos[at..at + half], &sin[at..at + half]);
            for head in row[..heads * head_dim].chunks_exact_mut(head_dim) {
                let (a, b) = head.split_at_mut(half);
                for i in 0..half {
                    let s = if inverse { -sin[i] } else { sin[i] };
                    let (x0, x1) = (a[i], b[i]);
                    a[i] = x0 * cos[i] - x1 * s;
                    b[i] = x1 * cos[i] + x0 * s;
                }
            }
        }
    });
}

/// Calls the vector closure on full vectors and the scalar closure on the remainder.
macro_rules! lanes {
    ($S:ident, $n:expr, |$i:ident| $vector:block, |$j:ident| $scalar:block) => {{
        let mut $i = 0;
        while $i + $S::LANES <= $n {
            $vector
            $i += $S::LANES;
        }
        for $j in $i..$n {
            $scalar
        }
    }};
}

#[inline(always)]
unsafe fn inverse_rms<S: Simd>(x: &[f32], eps: f32) -> f32 {
    let mut acc = S::splat(0.0);
    let mut tail = 0.0;
    lanes!(
        S,
        x.len(),
        |i| {
            let v = S::load(x.as_ptr().add(i));
            acc = S::fma(v, v, acc);
        },
        |j| {
            tail += x[j] * x[j];
        }
    );
    let mean = (S::sum(acc) + tail) / x.len() as f32;
    1.0 / (mean + eps).sqrt()
}

#[inline(always)]
unsafe fn rms_norm_row_generic<S: Simd>(x: &[f32], w: &[f32], eps: f32, y: &mut [f32]) {
    let r = inverse_rms::<S>(x, eps);
    lanes!(
        S,
        w.len(),
        |i| {
            let v = S::mul(S::load(x.as_ptr().add(i)), S::splat(r));
            S::store(y.as_mut_ptr().add(i), S::mul(S::load(w.as_ptr().add(i)), v));
        },
        |j| {
            y[j] = w[j] * (x[j] * r);
        }
    );
}

#[inline(always)]
unsafe fn rms_norm_backward_row_generic<S: Simd>(
    x: &[f32],
    w: &[f32],
    eps: f32,
    dy: &[f32],
    dx: &mut [f32],
) {
    let r = inverse_rms::<S>(x, eps);
    let mut acc = S::splat(0.0);
    let mut tail = 0.0;
    let (xp, wp, dyp, dxp) = (x.as_ptr(), w.as_ptr(), dy.as_ptr(), dx.as_mut_ptr());
    lanes!(
        S,
        w.len(),
        |i| {
            let wdy = S::mul(S::load(wp.add(i)), S::load(dyp.add(i)));
            acc = S::fma(wdy, S::load(xp.add(i)), acc);
        },
        |j| {
            tail += w[j] * dy[j] * x[j];
        }
    );
    let common = (S::sum(acc) + tail) * r * r * r / w.len() as f32;
    lanes!(
        S,
        w.len(),
        |i| {
            let wdy = S::mul(S::load(wp.add(i)), S::load(dyp.add(i)));
            let sum = S::fma(wdy, S::splat(r), S::load(dxp.add(i)));
            S::store(dxp.add(i), S::fma(S::load(xp.add(i)), S::splat(-common), sum));
        },
        |j| {
            dx[j] += w[j] * dy[j] * r - x[j] * common;
        }
    );
}

/// Computes `1 / (1 + e^-x)`.
#[inline(always)]
unsafe fn sigmoid<S: Simd>(x: S::F) -> S::F {
    let e = S::exp(S::sub(S::splat(0.0), x));
    S::div(S::splat(1.0), S::add(S::splat(1.0), e))
}

#[inline(always)]
unsafe fn swiglu_row_generic<S: Simd>(gate_up: &[f32], h: &mut [f32]) {
    let n = h.len();
    let (gate, up) = gate_up.split_at(n);
    lanes!(
        S,
        n,
        |i| {
            let g = S::load(gate.as_ptr().add(i));
            let silu = S::mul(g, sigmoid::<S>(g));
            S::store(h.as_mut_ptr().add(i), S::mul(silu, S::load(up.as_ptr().add(i))));
        },
        |j| {
            h[j] = gate[j] / (1.0 + (-gate[j]).exp()) * up[j];
        }
    );
}

#[inline(always)]
unsafe fn swiglu_backward_row_generic<S: Simd>(gate_up: &[f32], dh: &[f32], d: &mut [f32]) {
    let n = dh.len();
    let (gate, up) = gate_up.split_at(n);
    let (d_gate, d_up) = d.split_at_mut(n);
    lanes!(
        S,
        n,
        |i| {
            let g = S::load(gate.as_ptr().add(i));
            let dh = S::load(dh.as_ptr().add(i));
            let s = sigmoid::<S>(g);
            let silu = S::mul(g, s);
            // silu' = s + silu (1 - s)
            let slope = S::fma(silu, S::sub(S::splat(1.0), s), s);
            let d_silu = S::mul(dh, S::load(up.as_ptr().add(i)));
            S::store(d_gate.as_mut_ptr().add(i), S::mul(d_silu, slope));
            S::store(d_up.as_mut_ptr().add(i), S::mul(dh, silu));
        },
        |j| {
            let s = 1.0 / (1.0 + (-gate[j]).exp());
            let silu = gate[j] * s;
            d_gate[j] = dh[j] * up[j] * (s + silu * (1.0 - s));
            d_up[j] = dh[j] * silu;
        }
    );
}

dispatch! { unsafe fn rms_norm_row(x: &[f32], w: &[f32], eps: f32, y: &mut [f32]) = rms_norm_row_generic }
dispatch! { unsafe fn rms_norm_backward_row(x: &[f32], w: &[f32], eps: f32, dy: &[f32], dx: &mut [f32]) = rms_norm_backward_row_generic }
dispatch! { unsafe fn swiglu_row(gate_up: &[f32], h: &mut [f32]) = swiglu_row_generic }
dispatch! { unsafe fn swiglu_backward_row(gate_up: &[f32], dh: &[f32], d: &mut [f32]) = swiglu_backward_row_generic }
