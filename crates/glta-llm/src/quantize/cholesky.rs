use glta_linalg::{cholesky, invert_lower};
use ndarray::Array2;

/// Returns the upper triangular `U` with `H⁻¹ = Uᵀ U`, row-major `(k, k)`, for the symmetric matrix
/// whose lower triangle is `h(row, column)`. Returns `None` if `H` is not positive definite.
///
/// Let `H = L Lᵀ` be the Cholesky factorisation with rows and columns in reverse order. `U` is
/// `L⁻¹`, back in the order of `H`. The inverse of `H` is never formed.
pub(crate) fn inverse_upper_factor(k: usize, h: impl Fn(usize, usize) -> f64) -> Option<Vec<f32>> {
    let reverse = |i: usize| k - 1 - i;
    let mut inverse =
        Array2::from_shape_fn((k, k), |(r, c)| if r < c { 0.0 } else { h(reverse(c), reverse(r)) });
    cholesky(&mut inverse).ok()?;
    invert_lower(&mut inverse).ok()?;
    let mut factor = vec![0f32; k * k];
    for (row, out) in factor.chunks_exact_mut(k).enumerate() {
        for (column, out) in out.iter_mut().enumerate().skip(row) {
            *out = inverse[(reverse(row), reverse(column))] as f32;
        }
    }
    factor.iter().all(|v| v.is_finite()).then_some(factor)
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
        let u = inverse_upper_factor(k, |r, c| h[r * k + c]).unwrap();
        for r in 0..k {
            for c in 0..r {
                assert_eq!(u[r * k + c], 0.0);
            }
        }
        // Check `Uᵀ U H = 1` in a few columns.
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
        let factor = |h: [f64; 4]| inverse_upper_factor(2, |r, c| h[r * 2 + c]);
        assert!(factor([1.0, 2.0, 2.0, 1.0]).is_none());
        assert!(factor([1.0, f64::NAN, f64::NAN, 1.0]).is_none());
        assert!(factor([f64::INFINITY, 0.0, 0.0, 1.0]).is_none());
    }
}
