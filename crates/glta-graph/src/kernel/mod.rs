//! The inner loops, compiled for each instruction set and selected at run time.
//!
//! Each loop is generic over [`vector::Vector`] (sixteen `f32`). The order of additions is fixed
//! and multiply-adds are not fused, so AVX-512, AVX2 and the portable form return bit-identical
//! results.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod loops;
mod portable;
mod vector;

pub(crate) use loops::{AdamRows, AdamStep, Segment};

use crate::lines::Line;

/// The instruction set of the loops.
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
    /// Returns the best instruction set of this processor.
    pub(crate) fn detect() -> Self {
        Self::available()[0]
    }

    /// Returns all instruction sets of this processor, best first.
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

    /// Adds the rows of `src` that a segment lists to the segment's row of `dst`, for every
    /// segment.
    ///
    /// # Safety
    /// `self` must come from [`Isa::available`]. Every segment must be inside `indices`, every
    /// index inside `src`, and every segment's row inside `dst`.
    pub(crate) unsafe fn gather(
        self,
        segments: &[Segment],
        indices: &[u16],
        src: &[Line],
        dst: &mut [Line],
    ) {
        dispatch!(self, gather(segments, indices, src, dst))
    }

    /// Adds each segment's row of `src` to the rows of `dst` that the segment lists.
    ///
    /// # Safety
    /// The requirements are those of [`gather`](Self::gather), with `src` and `dst` exchanged.
    pub(crate) unsafe fn scatter(
        self,
        segments: &[Segment],
        indices: &[u16],
        src: &[Line],
        dst: &mut [Line],
    ) {
        dispatch!(self, scatter(segments, indices, src, dst))
    }

    /// Multiplies each row by its factor, then adds `add` if given.
    pub(crate) fn scale(self, dst: &mut [Line], factors: &[f32], add: Option<&[Line]>) {
        dispatch!(self, scale(dst, factors, add))
    }

    /// Applies one Adam step to whole rows.
    pub(crate) fn adam(self, step: AdamStep, rows: AdamRows<'_>) {
        dispatch!(self, adam(step, rows))
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

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
        // Check the portable form against the definition.
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
