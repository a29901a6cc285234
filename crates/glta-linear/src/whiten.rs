use glta_linalg::{add_gram, symmetric_eigen};
use ndarray::{Array2, ArrayView2, Axis};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Settings of [`whiten`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WhitenConfig {
    /// Principal components kept; fewer where the vectors have fewer. Default 192.
    pub components: usize,
    /// 1 divides each component by its standard deviation, 0 leaves it; 0.5 is
    /// between. Default 1.
    pub strength: f64,
}

impl Default for WhitenConfig {
    fn default() -> Self {
        Self { components: 192, strength: 1.0 }
    }
}

impl WhitenConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Config`] for no component, or a strength outside `[0, 1]`.
    pub fn validate(&self) -> Result<()> {
        let wrong = |field, problem: String| {
            Err(Error::Config { system: "text whitening", field, problem })
        };
        if self.components == 0 {
            return wrong("components", "must be at least 1".into());
        }
        if !(0.0..=1.0).contains(&self.strength) {
            return wrong("strength", format!("{} is not in [0, 1]", self.strength));
        }
        Ok(())
    }
}

/// Text vectors `(items, dim)` centred, turned into their principal components,
/// divided by the components' standard deviations and scaled to length 1:
/// `(items, components)`.
///
/// The vectors of a language model share one large direction, which makes all
/// texts look alike; without it their cosine tells them apart (Su et al. 2021,
/// "Whitening Sentence Representations"). Rows of zeros stand for items without a
/// text: they take no part and stay zero.
///
/// # Errors
/// Bad settings, values that are not finite, or fewer than two texts.
pub fn whiten(vectors: ArrayView2<'_, f32>, config: &WhitenConfig) -> Result<Array2<f32>> {
    config.validate()?;
    if let Some(((row, _), _)) = vectors.indexed_iter().find(|(_, v)| !v.is_finite()) {
        return Err(Error::TextVectors(format!("that of item {row} is not finite")));
    }
    let texts: Vec<usize> =
        (0..vectors.nrows()).filter(|&r| vectors.row(r).iter().any(|&v| v != 0.0)).collect();
    if texts.len() < 2 {
        return Err(Error::TextVectors(format!(
            "only {} of {} items have one, two are needed",
            texts.len(),
            vectors.nrows()
        )));
    }
    let dim = vectors.ncols();
    let mut centred = vectors.select(Axis(0), &texts).mapv(f64::from);
    let mean = centred.sum_axis(Axis(0)) / texts.len() as f64;
    centred -= &mean;
    let mut covariance = Array2::zeros((dim, dim));
    add_gram(&mut covariance, 1.0 / texts.len() as f64, centred.t())?;
    let eigen = symmetric_eigen(covariance, config.components)?;
    // Components that are nothing but rounding are left out, or whitening would blow them up.
    let floor = 1e-9 * eigen.values[0].max(f64::MIN_POSITIVE);
    let kept = eigen.values.iter().take(config.components).take_while(|&&v| v > floor).count();
    let map = Array2::from_shape_fn((dim, kept), |(r, c)| {
        eigen.vectors[(c, r)] * eigen.values[c].powf(-0.5 * config.strength)
    });
    let components = centred.dot(&map);
    let mut out = Array2::zeros((vectors.nrows(), kept));
    for (&item, row) in texts.iter().zip(components.axis_iter(Axis(0))) {
        let length = row.dot(&row).sqrt();
        if length > 0.0 {
            out.row_mut(item).assign(&row.mapv(|v| (v / length) as f32));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    fn vectors() -> Array2<f32> {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        // A large common direction and very unequal spreads.
        Array2::from_shape_fn((300, 8), |(_, c)| {
            10.0 + rng.random_range(-1.0f32..1.0) * 0.2f32.powi(c as i32)
        })
    }

    #[test]
    fn components_are_uncorrelated_and_of_one_spread_before_scaling() {
        let data = vectors();
        let config = WhitenConfig { components: 5, strength: 1.0 };
        let out = whiten(data.view(), &config).unwrap();
        assert_eq!(out.dim(), (300, 5));
        for row in out.rows() {
            assert!((row.dot(&row) - 1.0).abs() < 1e-5);
        }
        // Directions spread evenly: the mean product of two components is 0, of
        // one with itself a fifth.
        let second = out.t().dot(&out) / 300.0;
        for ((r, c), v) in second.indexed_iter() {
            let expected = if r == c { 0.2 } else { 0.0 };
            assert!((v - expected).abs() < 0.05, "({r}, {c}): {v}");
        }
        // Without whitening the first component takes nearly all.
        let plain = whiten(data.view(), &WhitenConfig { strength: 0.0, ..config }).unwrap();
        assert!(plain.column(0).mapv(|v| v * v).sum() / 300.0 > 0.8);
    }

    #[test]
    fn items_without_text_stay_zero_and_change_nothing() {
        let data = vectors();
        let mut more = Array2::zeros((301, 8));
        more.slice_mut(ndarray::s![1.., ..]).assign(&data);
        let config = WhitenConfig::default();
        let out = whiten(more.view(), &config).unwrap();
        assert!(out.row(0).iter().all(|&v| v == 0.0));
        assert_eq!(out.slice(ndarray::s![1.., ..]), whiten(data.view(), &config).unwrap());
    }

    #[test]
    fn directions_without_spread_are_left_out() {
        let mut data = vectors();
        data.column_mut(7).fill(4.0);
        let out = whiten(data.view(), &WhitenConfig::default()).unwrap();
        assert_eq!(out.ncols(), 7);
        assert!(out.iter().all(|v| v.is_finite()));
    }

    #[test]
    fn refuses_what_cannot_work() {
        let mut data = vectors();
        for config in [
            WhitenConfig { components: 0, ..Default::default() },
            WhitenConfig { strength: f64::NAN, ..Default::default() },
        ] {
            assert!(matches!(whiten(data.view(), &config), Err(Error::Config { .. })));
        }
        data[(2, 1)] = f32::INFINITY;
        let message = whiten(data.view(), &WhitenConfig::default()).unwrap_err().to_string();
        assert!(message.contains("item 2"), "{message}");
        let none = whiten(Array2::zeros((4, 3)).view(), &WhitenConfig::default()).unwrap_err();
        assert!(none.to_string().contains("0 of 4"), "{none}");
    }
}
