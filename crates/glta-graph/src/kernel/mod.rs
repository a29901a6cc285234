//! The inner loops, compiled once for each instruction set and chosen at run
//! time.
//!
//! Every loop is written once over the [`Vector`] trait (sixteen `f32`), with
//! the order of all additions fixed and no fused multiply-add, so that AVX-512,
//! AVX2 and the portable form give the same bits.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use crate::lines::Line;

/// A run of neighbours of one row within one block of columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Row within the chunk.
    pub(crate) row: u16,
    /// Number of neighbours.
    pub(crate) len: u16,
    /// Where its column ids start in the chunk's `indices`.
    pub(crate) start: u32,
}

/// Sixteen `f32` in registers.
///
/// # Safety
/// Callers make sure that the processor has the instruction set of the
/// implementation and that pointers are valid.
pub(crate) trait Vector: Copy {
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(line: *const Line) -> Self;
    unsafe fn store(self, line: *mut Line);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    unsafe fn sqrt(self) -> Self;
}

/// Constants of one Adam step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdamStep {
    pub(crate) beta1: f32,
    pub(crate) beta2: f32,
    pub(crate) epsilon: f32,
    /// Learning rate over the bias correction of the first moment.
    pub(crate) step_size: f32,
    /// One over the square root of the bias correction of the second moment.
    pub(crate) second_scale: f32,
}

/// The rows one Adam call works on; all slices have the same length.
pub(crate) struct AdamRows<'a> {
    pub(crate) parameters: &'a mut [Line],
    pub(crate) first: &'a mut [Line],
    pub(crate) second: &'a mut [Line],
    /// In: gradient divided by `sqrt_degree`. Out: the new parameters divided by
    /// `sqrt_degree`, the input of the next propagation.
    pub(crate) scaled: &'a mut [Line],
    pub(crate) sqrt_degree: &'a [f32],
    pub(crate) inv_sqrt_degree: &'a [f32],
    /// L2 coefficient of each row: occurrences in the batch times the weight.
    pub(crate) decay: &'a [f32],
}

/// `dst[row] += sum of src[indices]` for every segment.
#[inline(always)]
unsafe fn gather<V: Vector>(segments: &[Segment], indices: &[u16], src: &[Line], dst: &mut [Line]) {
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

/// `dst[index] += src[row]` for every index of every segment.
#[inline(always)]
unsafe fn scatter<V: Vector>(
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

/// `dst[r] *= scale[r]`, then `+= add[r]` where given.
#[inline(always)]
unsafe fn scale<V: Vector>(dst: &mut [Line], scale: &[f32], add: Option<&[Line]>) {
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

/// Adam (Kingma and Ba 2015) on whole rows.
#[inline(always)]
unsafe fn adam<V: Vector>(step: AdamStep, rows: AdamRows<'_>) {
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

/// The instruction set the loops run with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isa {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

macro_rules! dispatch {
    ($isa:expr, $name:ident ( $($arg:expr),* )) => {
        match $isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { avx512::$name($($arg),*) },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { avx2::$name($($arg),*) },
            Isa::Portable => unsafe { portable::$name($($arg),*) },
        }
    };
}

impl Isa {
    /// The best set this processor has.
    pub(crate) fn detect() -> Self {
        Self::available()[0]
    }

    /// All sets this processor has, best first.
    pub(crate) fn available() -> Vec<Self> {
        let mut sets = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx512f") {
                sets.push(Self::Avx512);
            }
            if std::arch::is_x86_feature_detected!("avx2") {
                sets.push(Self::Avx2);
            }
        }
        sets.push(Self::Portable);
        sets
    }

    /// Adds to every segment's row of `dst` the rows of `src` that the segment
    /// names.
    ///
    /// # Safety
    /// `self` came from [`Isa::available`]; every segment lies inside `indices`,
    /// every named index inside `src`, every segment's row inside `dst`.
    pub(crate) unsafe fn gather(
        self,
        segments: &[Segment],
        indices: &[u16],
        src: &[Line],
        dst: &mut [Line],
    ) {
        dispatch!(self, gather(segments, indices, src, dst))
    }

    /// Adds every segment's row of `src` to the rows of `dst` it names.
    ///
    /// # Safety
    /// As [`gather`](Self::gather), with `src` and `dst` exchanged.
    pub(crate) unsafe fn scatter(
        self,
        segments: &[Segment],
        indices: &[u16],
        src: &[Line],
        dst: &mut [Line],
    ) {
        dispatch!(self, scatter(segments, indices, src, dst))
    }

    /// Multiplies each row by its factor and adds `add` where given.
    pub(crate) fn scale(self, dst: &mut [Line], factors: &[f32], add: Option<&[Line]>) {
        dispatch!(self, scale(dst, factors, add))
    }

    /// One Adam step on whole rows.
    pub(crate) fn adam(self, step: AdamStep, rows: AdamRows<'_>) {
        dispatch!(self, adam(step, rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn lines(rng: &mut ChaCha8Rng, n: usize) -> Vec<Line> {
        (0..n).map(|_| Line(std::array::from_fn(|_| rng.random_range(-1.0..1.0)))).collect()
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let (rows, columns) = (40, 60);
        let mut indices = Vec::new();
        let mut segments = Vec::new();
        for row in 0..rows {
            let start = indices.len() as u32;
            for column in 0..columns {
                if rng.random_range(0..rows) < row {
                    indices.push(column);
                }
            }
            let len = (indices.len() as u32 - start) as u16;
            segments.push(Segment { row, len, start });
        }
        let src = lines(&mut rng, columns.into());
        let out = lines(&mut rng, rows.into());
        let factors: Vec<f32> = (0..rows).map(|r| 1.0 / f32::from(r + 1)).collect();
        let step = AdamStep {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            step_size: 0.01,
            second_scale: 1.7,
        };
        let run = |isa: Isa| {
            let (mut gathered, mut scattered) = (out.clone(), src.clone());
            unsafe {
                isa.gather(&segments, &indices, &src, &mut gathered);
                isa.scatter(&segments, &indices, &out, &mut scattered);
            }
            isa.scale(&mut gathered, &factors, Some(&out));
            let (mut p, mut m, mut t) = (out.clone(), out.clone(), out.clone());
            let mut v: Vec<Line> = out.iter().map(|l| Line(l.0.map(f32::abs))).collect();
            isa.adam(
                step,
                AdamRows {
                    parameters: &mut p,
                    first: &mut m,
                    second: &mut v,
                    scaled: &mut t,
                    sqrt_degree: &factors,
                    inv_sqrt_degree: &factors,
                    decay: &factors,
                },
            );
            (gathered, scattered, p, m, v, t)
        };
        let expected = run(Isa::Portable);
        for isa in Isa::available() {
            assert!(run(isa) == expected, "{isa:?} differs from the portable form");
        }
        // And the portable form is right.
        for segment in &segments {
            let row = usize::from(segment.row);
            let mut sum = [0.0f64; 16];
            let ids = &indices[segment.start as usize..][..usize::from(segment.len)];
            for &id in ids {
                for (s, x) in sum.iter_mut().zip(src[usize::from(id)].0) {
                    *s += f64::from(x);
                }
            }
            for (c, &s) in sum.iter().enumerate() {
                let o = f64::from(out[row].0[c]);
                let want = (o + s) * f64::from(factors[row]) + o;
                assert!((f64::from(expected.0[row].0[c]) - want).abs() < 1e-5);
            }
        }
    }
}
