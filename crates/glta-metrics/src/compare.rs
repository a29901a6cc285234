use glta_core::stream;
use rand::Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::{Error, Metric, Report, Result};

impl Report {
    /// Returns the standard error of the mean over users, with the sample deviation (`n − 1`).
    /// Returns `None` for an unknown `k` or fewer than two users.
    pub fn standard_error(&self, metric: Metric, k: usize) -> Option<f64> {
        standard_error(self.per_user(metric, k)?)
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn standard_error(values: &[f64]) -> Option<f64> {
    let n = values.len() as f64;
    let mean = mean(values);
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (values.len() >= 2).then(|| (squares / (n - 1.0) / n).sqrt())
}

/// Differences of two systems per user, for paired tests.
///
/// ```
/// use glta_metrics::Paired;
///
/// let paired = Paired::from_values(&[0.5, 0.7, 0.6, 0.9], &[0.4, 0.5, 0.6, 0.6])?;
/// assert!((paired.mean() - 0.15).abs() < 1e-12);
/// let test = paired.t_test();
/// assert!((test.p_value - 0.1027).abs() < 1e-4);
/// # Ok::<(), glta_metrics::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Paired {
    differences: Vec<f64>,
}

/// Result of a two-sided paired t-test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TTest {
    /// Mean difference divided by its standard error; infinite if all users differ by the same
    /// amount.
    pub t: f64,
    /// Degrees of freedom: number of users − 1.
    pub degrees_of_freedom: usize,
    /// Probability of a `|t|` at least as large if there is no difference.
    pub p_value: f64,
}

/// Settings of [`Paired::bootstrap`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BootstrapConfig {
    /// Number of resamples. Default 10,000.
    pub resamples: usize,
    /// Confidence level of the interval, in `(0, 1)`. Default 0.95.
    pub confidence: f64,
    /// Seed of the resamples. Default 2024.
    pub seed: u64,
}

impl Default for BootstrapConfig {
    fn default() -> Self {
        Self { resamples: 10_000, confidence: 0.95, seed: 2024 }
    }
}

impl BootstrapConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// Returns [`Error::Config`] for no resamples or a confidence outside `(0, 1)`.
    pub fn validate(&self) -> Result<()> {
        let config = |field, problem| Err(Error::Config { field, problem });
        if self.resamples == 0 {
            return config("resamples", "must be at least 1");
        }
        if !(self.confidence > 0.0 && self.confidence < 1.0) {
            return config("confidence", "must lie between 0 and 1");
        }
        Ok(())
    }
}

/// Result of a paired bootstrap over users.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Bootstrap {
    /// Mean difference of the users.
    pub mean: f64,
    /// Lower and upper bound of the percentile interval of the mean difference.
    pub interval: (f64, f64),
    /// Two-sided p-value: the fraction of resamples whose mean is at least as far from the observed
    /// mean as the observed mean is from zero. One is added to the numerator and the denominator.
    pub p_value: f64,
}

impl Paired {
    /// Computes the differences `a − b` of a metric at `k` per user.
    ///
    /// # Errors
    /// Returns [`Error::Unpaired`] if the reports have different users, lack `k`, or have fewer
    /// than two users.
    pub fn new(a: &Report, b: &Report, metric: Metric, k: usize) -> Result<Self> {
        if a.users() != b.users() {
            return Err(Error::Unpaired("they are over different users".into()));
        }
        match (a.per_user(metric, k), b.per_user(metric, k)) {
            (Some(a), Some(b)) => Self::from_values(a, b),
            _ => Err(Error::Unpaired(format!("{k} is not a cut-off of both"))),
        }
    }

    /// Computes the differences `a − b` of two series, such as one value per seed.
    ///
    /// # Errors
    /// Returns [`Error::Unpaired`] for series of different lengths or with fewer than two values.
    pub fn from_values(a: &[f64], b: &[f64]) -> Result<Self> {
        if a.len() != b.len() {
            let lengths = format!("{} values against {}", a.len(), b.len());
            return Err(Error::Unpaired(lengths));
        }
        if a.len() < 2 {
            return Err(Error::Unpaired("fewer than two values".into()));
        }
        Ok(Self { differences: a.iter().zip(b).map(|(a, b)| a - b).collect() })
    }

    /// Returns the mean difference.
    pub fn mean(&self) -> f64 {
        mean(&self.differences)
    }

    /// Returns the standard error of the mean difference.
    pub fn standard_error(&self) -> f64 {
        standard_error(&self.differences).unwrap_or(0.0)
    }

    /// Runs a two-sided paired t-test.
    pub fn t_test(&self) -> TTest {
        let degrees_of_freedom = self.differences.len() - 1;
        let (mean, error) = (self.mean(), self.standard_error());
        let t = if mean == 0.0 { 0.0 } else { mean / error };
        let p_value = match StudentsT::new(0.0, 1.0, degrees_of_freedom as f64) {
            Ok(_) if t.is_infinite() => 0.0,
            Ok(distribution) => (2.0 * distribution.sf(t.abs())).min(1.0),
            // There is at least one degree of freedom.
            Err(_) => f64::NAN,
        };
        TTest { t, degrees_of_freedom, p_value }
    }

    /// Runs a paired bootstrap over users, drawn with replacement. Each resample has its own random
    /// stream, so the result does not depend on the number of threads.
    ///
    /// # Errors
    /// Returns an error for invalid settings.
    pub fn bootstrap(&self, config: &BootstrapConfig) -> Result<Bootstrap> {
        config.validate()?;
        let n = self.differences.len();
        let mut means: Vec<f64> = (0..config.resamples as u64)
            .into_par_iter()
            .map(|b| {
                let mut rng = stream(config.seed, "bootstrap", &[b]);
                let sum: f64 = (0..n).map(|_| self.differences[rng.random_range(0..n)]).sum();
                sum / n as f64
            })
            .collect();
        means.sort_unstable_by(f64::total_cmp);
        let mean = self.mean();
        let far = means.iter().filter(|m| (**m - mean).abs() >= mean.abs()).count();
        let tail = (1.0 - config.confidence) / 2.0;
        let quantile = |q: f64| means[((means.len() - 1) as f64 * q).round() as usize];
        Ok(Bootstrap {
            mean,
            interval: (quantile(tail), quantile(1.0 - tail)),
            p_value: (far + 1) as f64 / (means.len() + 1) as f64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns two series of a fixed linear congruential generator in `[0, 1)`; the second is
    /// shifted.
    fn series(n: usize, shift: f64) -> (Vec<f64>, Vec<f64>) {
        let mut state = 12_345u64;
        let mut next = || {
            state = (1_103_515_245 * state + 12_345) % (1 << 31);
            state as f64 / f64::from(1u32 << 31)
        };
        let a: Vec<f64> = (0..n).map(|_| next() + shift).collect();
        let b: Vec<f64> = (0..n).map(|_| next()).collect();
        (a, b)
    }

    #[test]
    fn t_test_equals_scipy() {
        // scipy.stats.ttest_rel has these values for the same series (tests/make_reference.py).
        for (n, shift, t, p) in T_TESTS {
            let (a, b) = series(n, shift);
            let test = Paired::from_values(&a, &b).unwrap().t_test();
            assert!((test.t - t).abs() < 1e-9, "{} {t}", test.t);
            assert!((test.p_value / p - 1.0).abs() < 1e-6, "{} {p}", test.p_value);
        }
    }

    const T_TESTS: [(usize, f64, f64, f64); 3] = [
        (2, 0.0, 0.8181651153061557, 0.56345740441369),
        (30, 0.1, 1.650444427805236, 0.10964278103790008),
        (1000, 0.1, 7.017872031051369, 4.152696736046128e-12),
    ];

    #[test]
    fn bootstrap_agrees_with_the_t_test() {
        let (a, b) = series(400, 0.05);
        let paired = Paired::from_values(&a, &b).unwrap();
        let bootstrap = paired.bootstrap(&BootstrapConfig::default()).unwrap();
        assert!((bootstrap.p_value - paired.t_test().p_value).abs() < 0.01);
        let half = 1.96 * paired.standard_error();
        assert!((bootstrap.interval.0 - (paired.mean() - half)).abs() < 0.1 * half);
        assert!((bootstrap.interval.1 - (paired.mean() + half)).abs() < 0.1 * half);
        let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let again = one_thread.install(|| paired.bootstrap(&BootstrapConfig::default()));
        assert_eq!(again.unwrap(), bootstrap);
    }

    #[test]
    fn degenerate_series() {
        let same = Paired::from_values(&[0.5, 0.2], &[0.5, 0.2]).unwrap();
        assert_eq!(same.t_test().p_value, 1.0);
        let always = Paired::from_values(&[1.5, 1.25], &[0.5, 0.25]).unwrap();
        assert_eq!(always.t_test().p_value, 0.0);
        assert!(Paired::from_values(&[1.0], &[1.0]).is_err());
        assert!(Paired::from_values(&[1.0, 2.0], &[1.0]).is_err());
        let config = BootstrapConfig { resamples: 0, ..BootstrapConfig::default() };
        assert!(same.bootstrap(&config).is_err());
        let config = BootstrapConfig { confidence: 1.0, ..BootstrapConfig::default() };
        assert!(same.bootstrap(&config).is_err());
    }
}
