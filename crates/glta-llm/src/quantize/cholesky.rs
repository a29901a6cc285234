use rayon::prelude::*;

/// Upper triangular `U` with `H⁻¹ = Uᵀ U`, `(k, k)`, of a symmetric `h`, which
/// is destroyed; `None` where it is not positive definite.
///
/// Factorising from the last row up gives `H = R Rᵀ` with `R` upper
/// triangular, so `U = R⁻¹`: no inverse of `H` is ever formed.
pub(crate) fn inverse_upper_factor(h: &mut [f64], k: usize) -> Option<Vec<f32>> {
    // `R` from the last column: column j of R, then its part is taken from the
    // leading (j, j) block.
    for j in (0..k).rev() {
        let pivot = h[j * k + j];
        if !(pivot.is_finite() && pivot > 0.0) {
            return None;
        }
        let root = pivot.sqrt();
        // Row j left of the diagonal, by symmetry column j above it.
        let (above, row_j) = h.split_at_mut(j * k);
        let column: Vec<f64> = row_j[..j].iter().map(|v| v / root).collect();
        row_j[j] = root;
        let update = |(i, row): (usize, &mut [f64])| {
            let c = column[i];
            // Only the lower triangle of the leading block is read later.
            for (r, v) in row[..=i].iter_mut().zip(&column) {
                *r -= c * v;
            }
            row[j] = c;
        };
        if j > 256 {
            above.par_chunks_exact_mut(k).enumerate().for_each(update);
        } else {
            above.chunks_exact_mut(k).enumerate().for_each(update);
        }
    }
    // Row i of U: solve u R = e_i, with u zero left of i.
    let mut out = vec![0f32; k * k];
    let h = &*h;
    out.par_chunks_exact_mut(k).enumerate().for_each(|(i, out)| {
        let mut u = vec![0f64; k];
        u[i] = 1.0;
        for j in i..k {
            u[j] /= h[j * k + j];
            let v = u[j];
            // R's row j right of the diagonal.
            for (u, r) in u[j + 1..].iter_mut().zip(&h[j * k + j + 1..(j + 1) * k]) {
                *u -= v * r;
            }
        }
        for (out, u) in out.iter_mut().zip(&u) {
            *out = *u as f32;
        }
    });
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_inverts() {
        let k = 300;
        let h: Vec<f64> = (0..k * k)
            .map(|i| {
                let (r, c) = (i / k, i % k);
                let near = 1.0 / (1.0 + (r as f64 - c as f64).abs());
                near + if r == c { 0.5 } else { 0.0 }
            })
            .collect();
        let u = inverse_upper_factor(&mut h.clone(), k).unwrap();
        for r in 0..k {
            for c in 0..r {
                assert_eq!(u[r * k + c], 0.0);
            }
        }
        // Uᵀ U H = 1 on a few columns.
        for column in [0, 17, 299] {
            let uh: Vec<f64> = (0..k)
                .map(|r| (0..k).map(|c| f64::from(u[r * k + c]) * h[c * k + column]).sum())
                .collect();
            for row in 0..k {
                let v: f64 = (0..k).map(|r| f64::from(u[r * k + row]) * uh[r]).sum();
                let expected = if row == column { 1.0 } else { 0.0 };
                assert!((v - expected).abs() < 1e-5, "{row} {column} {v}");
            }
        }
        assert!(inverse_upper_factor(&mut [1.0, 2.0, 2.0, 1.0], 2).is_none());
    }
}
