//! Ridge regression with an intercept, computed in `f64`.

use glta_linalg::invert_with;
use ndarray::{Array1, Array2, ArrayView2, Axis};

use crate::{Error, Result};

/// Moments of standardised features `(n, features)` and centred targets `(n, targets)`.
pub(crate) struct Moments {
    mean: Array1<f64>,
    /// Reciprocal standard deviation of each feature; 0 for a constant feature.
    scale: Array1<f64>,
    target_mean: Array1<f64>,
    /// Correlation matrix of the features, `(features, features)`.
    gram: Array2<f64>,
    cross: Array2<f64>,
}

/// A fitted ridge regression.
pub(crate) struct Ridge<'a> {
    moments: &'a Moments,
    /// Regression weights, `(features, targets)`.
    weights: Array2<f64>,
}

impl Moments {
    /// Computes the moments. Call this only with at least one row of features.
    pub(crate) fn new(features: ArrayView2<'_, f32>, targets: ArrayView2<'_, f32>) -> Self {
        let n = features.nrows().max(1) as f64;
        let x = features.mapv(f64::from);
        let y = targets.mapv(f64::from);
        let mean = x.sum_axis(Axis(0)) / n;
        let target_mean = y.sum_axis(Axis(0)) / n;
        let (x, y) = (x - &mean, y - &target_mean);
        let deviation = (x.map_axis(Axis(0), |column| column.dot(&column)) / n).mapv(f64::sqrt);
        let scale = deviation.mapv(|d| if d > 1e-12 { 1.0 / d } else { 0.0 });
        let x = x * &scale;
        let (gram, cross) = (x.t().dot(&x) / n, x.t().dot(&y) / n);
        Self { mean, scale, target_mean, gram, cross }
    }

    /// Solves the regression with the penalty `strength`, relative to the variance of a feature.
    pub(crate) fn solve(&self, strength: f64) -> Result<Ridge<'_>> {
        let mut inverse = self.gram.clone();
        inverse.diag_mut().mapv_inplace(|v| v + strength);
        let problem = |e: glta_linalg::Error| Error::Config {
            field: "llm_path.ridge",
            problem: format!("{strength}: {e}"),
        };
        invert_with(&mut inverse, &mut glta_core::Silent).map_err(problem)?;
        for row in 0..inverse.nrows() {
            for column in row + 1..inverse.ncols() {
                inverse[[row, column]] = inverse[[column, row]];
            }
        }
        Ok(Ridge { moments: self, weights: inverse.dot(&self.cross) })
    }
}

impl Ridge<'_> {
    pub(crate) fn predict(&self, features: ArrayView2<'_, f32>) -> Array2<f32> {
        let Moments { mean, scale, target_mean, .. } = self.moments;
        let x = (features.mapv(f64::from) - mean) * scale;
        (x.dot(&self.weights) + target_mean).mapv(|v| v as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gradient_of_the_objective_is_zero() {
        let value = |n: usize, k: f64| ((n as f64 * k).sin() * 3.0) as f32;
        let x = Array2::from_shape_fn((30, 4), |(r, c)| match c {
            3 => 7.0,
            _ => value(r * 4 + c, 1.7) * (c + 1) as f32 + 5.0,
        });
        let y = Array2::from_shape_fn((30, 2), |(r, c)| value(r * 2 + c, 0.9) + x[[r, 0]]);
        let moments = Moments::new(x.view(), y.view());
        let ridge = moments.solve(0.3).unwrap();
        let predicted = ridge.predict(x.view());
        let n = 30.0;
        for target in 0..2 {
            let residual: Vec<f64> =
                (0..30).map(|r| f64::from(y[[r, target]] - predicted[[r, target]])).collect();
            // The intercept makes the residuals sum to 0.
            assert!(residual.iter().sum::<f64>().abs() < 1e-3);
            for feature in 0..3 {
                let column: Vec<f64> = x.column(feature).iter().map(|&v| f64::from(v)).collect();
                let mean = column.iter().sum::<f64>() / n;
                let square: f64 = column.iter().map(|v| (v - mean).powi(2)).sum();
                let deviation = (square / n).sqrt();
                let products = residual.iter().zip(&column).map(|(r, v)| r * (v - mean));
                let slope = products.sum::<f64>() / n / deviation;
                let weight = ridge.weights[[feature, target]];
                assert!((slope - 0.3 * weight).abs() < 1e-4, "{slope} {weight}");
            }
            assert_eq!(ridge.weights[[3, target]], 0.0);
        }
        // Without a penalty the regression recovers a linear target.
        let linear = x.slice(ndarray::s![.., ..1]).to_owned();
        let moments = Moments::new(x.view(), linear.view());
        let got = moments.solve(1e-9).unwrap().predict(x.view());
        assert!(got.iter().zip(&linear).all(|(a, b)| (a - b).abs() < 1e-3));
    }
}
