//! The loops of the kernels, generic over the vector type.

use super::vector::Vector;
use crate::lines::Line;

/// Consecutive neighbours of one row within one block of columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Row index within the chunk.
    pub(crate) row: u16,
    /// Number of neighbours.
    pub(crate) len: u16,
    /// Index of the first column id in `indices` of the chunk.
    pub(crate) start: u32,
}

/// Constants of one Adam step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdamStep {
    pub(crate) beta1: f32,
    pub(crate) beta2: f32,
    pub(crate) epsilon: f32,
    /// Learning rate divided by the bias correction of the first moment.
    pub(crate) step_size: f32,
    /// Reciprocal square root of the bias correction of the second moment.
    pub(crate) second_scale: f32,
}

/// The rows of one Adam call. All slices have the same length.
pub(crate) struct AdamRows<'a> {
    pub(crate) parameters: &'a mut [Line],
    pub(crate) first: &'a mut [Line],
    pub(crate) second: &'a mut [Line],
    /// On input, the gradient divided by `sqrt_degree`. On output, the new parameters divided by
    /// `sqrt_degree`, which the next propagation reads.
    pub(crate) scaled: &'a mut [Line],
    pub(crate) sqrt_degree: &'a [f32],
    pub(crate) inv_sqrt_degree: &'a [f32],
    /// L2 coefficient of each row: its number of occurrences in the batch, times the L2 weight.
    pub(crate) decay: &'a [f32],
}

/// Adds the sum of `src[indices]` to `dst[row]` for every segment.
#[inline(always)]
pub(super) unsafe fn gather<V: Vector>(
    segments: &[Segment],
    indices: &[u16],
    src: &[Line],
    dst: &mut [Line],
) {
    let (src, dst) = (src.as_ptr(), dst.as_mut_ptr());
    for segment in segments {
        unsafe {
            let ids = indices.as_ptr().add(segment.start as usize);
            let len = usize::from(segment.len);
            let out = dst.add(usize::from(segment.row));
            let at = |k: usize| V::load(src.add(usize::from(*ids.add(k))));
            let mut a = V::load(out);
            if len >= 4 {
                let (mut b, mut c, mut d) = (at(0), at(1), at(2));
                a = a.add(at(3));
                let mut k = 4;
                while k + 4 <= len {
                    b = b.add(at(k));
                    c = c.add(at(k + 1));
                    d = d.add(at(k + 2));
                    a = a.add(at(k + 3));
                    k += 4;
                }
                a = a.add(b).add(c.add(d));
                while k < len {
                    a = a.add(at(k));
                    k += 1;
                }
            } else {
                for k in 0..len {
                    a = a.add(at(k));
                }
            }
            a.store(out);
        }
    }
}

/// Adds `src[row]` to `dst[index]` for every index of every segment.
#[inline(always)]
pub(super) unsafe fn scatter<V: Vector>(
    segments: &[Segment],
    indices: &[u16],
    src: &[Line],
    dst: &mut [Line],
) {
    let (src, dst) = (src.as_ptr(), dst.as_mut_ptr());
    for segment in segments {
        unsafe {
            let ids = indices.as_ptr().add(segment.start as usize);
            let value = V::load(src.add(usize::from(segment.row)));
            for k in 0..usize::from(segment.len) {
                let out = dst.add(usize::from(*ids.add(k)));
                V::load(out).add(value).store(out);
            }
        }
    }
}

/// Multiplies `dst[r]` by `scale[r]`, then adds `add[r]` if given.
#[inline(always)]
pub(super) unsafe fn scale<V: Vector>(dst: &mut [Line], scale: &[f32], add: Option<&[Line]>) {
    for (r, (line, &factor)) in dst.iter_mut().zip(scale).enumerate() {
        unsafe {
            let mut value = V::load(line).mul(V::splat(factor));
            if let Some(add) = add {
                value = value.add(V::load(&add[r]));
            }
            value.store(line);
        }
    }
}

/// Applies an Adam step (Kingma and Ba 2015) to whole rows.
#[inline(always)]
pub(super) unsafe fn adam<V: Vector>(step: AdamStep, rows: AdamRows<'_>) {
    let n = rows.parameters.len();
    let (first, second) = (&mut rows.first[..n], &mut rows.second[..n]);
    let (scaled, decay) = (&mut rows.scaled[..n], &rows.decay[..n]);
    let (sqrt_degree, inv_sqrt_degree) = (&rows.sqrt_degree[..n], &rows.inv_sqrt_degree[..n]);
    unsafe {
        let (beta1, beta2) = (V::splat(step.beta1), V::splat(step.beta2));
        let (rest1, rest2) = (V::splat(1.0 - step.beta1), V::splat(1.0 - step.beta2));
        let (epsilon, second_scale) = (V::splat(step.epsilon), V::splat(step.second_scale));
        let descent = V::splat(-step.step_size);
        for r in 0..n {
            let p = V::load(&rows.parameters[r]);
            let g =
                V::load(&scaled[r]).mul(V::splat(sqrt_degree[r])).add(p.mul(V::splat(decay[r])));
            let m = V::load(&first[r]).mul(beta1).add(g.mul(rest1));
            let v = V::load(&second[r]).mul(beta2).add(g.mul(g).mul(rest2));
            let p = p.add(m.mul(descent).div(v.sqrt().mul(second_scale).add(epsilon)));
            m.store(&mut first[r]);
            v.store(&mut second[r]);
            p.store(&mut rows.parameters[r]);
            p.mul(V::splat(inv_sqrt_degree[r])).store(&mut scaled[r]);
        }
    }
}
