use std::path::Path;

use glta_linalg::{add_gram, symmetric_eigen};
use ndarray::{Array1, Array2, ArrayView2, Axis};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use crate::tensors::{TensorFile, Tensors, bytes_f64};
use crate::{Error, Result};

/// Number of rows that are converted to f64 at a time.
const BLOCK: usize = 4096;

/// Settings of [`Whitening`] and [`whiten`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WhitenConfig {
    /// Maximum number of principal components. Components without variance, except for rounding
    /// errors, are left out. Default 192.
    pub components: usize,
    /// Exponent of the standard deviation by which each component is divided: 1 whitens completely,
    /// 0 does not scale. Default 1.
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
    /// Returns [`Error::Config`] for zero components, or a strength outside `[0, 1]`.
    pub fn validate(&self) -> Result<()> {
        let invalid = |field, problem: String| {
            Err(Error::Config { system: "text whitening", field, problem })
        };
        if self.components == 0 {
            return invalid("components", "must be at least 1".into());
        }
        if !(0.0..=1.0).contains(&self.strength) {
            return invalid("strength", format!("{} is not in [0, 1]", self.strength));
        }
        Ok(())
    }
}

/// A whitening of text vectors: it centres them, projects them on their principal components,
/// divides the components by their standard deviations, and scales the result to unit norm (Su et
/// al. 2021, "Whitening Sentence Representations").
///
/// The vectors of a language model share one large direction, which makes all texts similar.
/// Without this direction, the cosine of their vectors distinguishes the texts.
///
/// ```
/// use glta_linear::{WhitenConfig, Whitening};
/// use ndarray::array;
///
/// let vectors = array![[9.0, 1.0], [9.1, -1.0], [8.9, 1.1], [0.0, 0.0]];
/// let whitening = Whitening::fit(vectors.view(), &WhitenConfig::default())?;
/// let white = whitening.apply(vectors.view())?;
/// assert_eq!(white.dim(), (4, 2));
/// // The last item has no text.
/// assert_eq!(white.row(3).to_vec(), [0.0, 0.0]);
/// # Ok::<(), glta_linear::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Whitening {
    /// Mean of the vectors, `(dim,)`.
    mean: Array1<f64>,
    /// Projection on the components with their scales, `(dim, components)`.
    map: Array2<f64>,
}

impl Whitening {
    /// Computes the mean and the components of vectors `(items, dim)`. Zero rows are items without
    /// a text and are ignored.
    ///
    /// # Errors
    /// Returns an error for invalid settings, values that are not finite, or fewer than two texts.
    pub fn fit(vectors: ArrayView2<'_, f32>, config: &WhitenConfig) -> Result<Self> {
        config.validate()?;
        check_finite(vectors)?;
        let texts = texts(vectors);
        if texts.len() < 2 {
            return Err(Error::TextVectors(format!(
                "only {} of {} items have one; at least two are needed",
                texts.len(),
                vectors.nrows()
            )));
        }
        let dim = vectors.ncols();
        let mut mean = Array1::<f64>::zeros(dim);
        for block in texts.chunks(BLOCK) {
            mean += &vectors.select(Axis(0), block).mapv(f64::from).sum_axis(Axis(0));
        }
        mean /= texts.len() as f64;
        let mut covariance = Array2::<f64>::zeros((dim, dim));
        for block in texts.chunks(BLOCK) {
            let centred = vectors.select(Axis(0), block).mapv(f64::from) - &mean;
            add_gram(&mut covariance, 1.0 / texts.len() as f64, centred.t())?;
        }
        let eigen = symmetric_eigen(covariance, config.components)?;
        // Leave out components that contain only rounding errors, because whitening would amplify
        // them.
        let largest = eigen.values.first().copied().unwrap_or_default();
        let floor = 1e-9 * largest.max(f64::MIN_POSITIVE);
        let kept = eigen.values.iter().take(config.components).take_while(|&&v| v > floor).count();
        let map = Array2::from_shape_fn((dim, kept), |(r, c)| {
            eigen.vectors[(c, r)] * eigen.values[c].powf(-0.5 * config.strength)
        });
        Ok(Self { mean, map })
    }

    /// Returns the whitened vectors, `(items, components)`. Zero rows stay zero.
    ///
    /// # Errors
    /// Returns [`Error::TextVectors`] for vectors of a different width than those of the fit, or
    /// values that are not finite.
    pub fn apply(&self, vectors: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        check_finite(vectors)?;
        if vectors.ncols() != self.mean.len() {
            return Err(Error::TextVectors(format!(
                "they have {} dimensions, but the whitening was fitted on {}",
                vectors.ncols(),
                self.mean.len()
            )));
        }
        let texts = texts(vectors);
        let mut out = Array2::zeros((vectors.nrows(), self.components()));
        for block in texts.chunks(BLOCK) {
            let centred = vectors.select(Axis(0), block).mapv(f64::from) - &self.mean;
            let white = centred.dot(&self.map);
            for (&item, row) in block.iter().zip(white.axis_iter(Axis(0))) {
                let length = row.dot(&row).sqrt();
                if length > 0.0 {
                    out.row_mut(item).assign(&row.mapv(|v| (v / length) as f32));
                }
            }
        }
        Ok(out)
    }

    /// Returns the number of components.
    pub fn components(&self) -> usize {
        self.map.ncols()
    }

    /// Saves the whitening as safetensors: `mean` (F64, `(dim,)`) and `map` (F64, `(dim,
    /// components)`).
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let mut file = TensorFile::default();
        file.put("mean", Dtype::F64, vec![self.mean.len()], bytes_f64(self.mean.iter()));
        file.put("map", Dtype::F64, self.map.shape().to_vec(), bytes_f64(self.map.iter()));
        file.write(path.as_ref(), None)
    }

    /// Loads a whitening that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is damaged.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let read = || -> std::result::Result<Self, String> {
            let tensors = Tensors::parse(&bytes)?;
            let map = tensors.matrix_f64("map")?;
            let mean = Array1::from_vec(tensors.f64("mean", map.nrows())?);
            Ok(Self { mean, map })
        };
        read().map_err(|e| Error::file(path, format!("not a readable whitening: {e}")))
    }
}

/// Runs [`Whitening::fit`] and [`Whitening::apply`], and returns vectors `(items, components)`.
///
/// ```
/// use glta_linear::{WhitenConfig, whiten};
/// use ndarray::array;
///
/// let vectors = array![[9.0f32, 1.0], [9.0, -1.0], [8.0, 0.0], [0.0, 0.0]];
/// let white = whiten(vectors.view(), &WhitenConfig { components: 1, ..Default::default() })?;
/// // The last item has no text.
/// assert_eq!((white.dim(), white[(3, 0)]), ((4, 1), 0.0));
/// # Ok::<(), glta_linear::Error>(())
/// ```
///
/// # Errors
/// Returns an error for invalid settings, values that are not finite, or fewer than two texts.
pub fn whiten(vectors: ArrayView2<'_, f32>, config: &WhitenConfig) -> Result<Array2<f32>> {
    Whitening::fit(vectors, config)?.apply(vectors)
}

/// Returns the indices of the rows that are not zero.
fn texts(vectors: ArrayView2<'_, f32>) -> Vec<usize> {
    (0..vectors.nrows()).filter(|&r| vectors.row(r).iter().any(|&v| v != 0.0)).collect()
}

fn check_finite(vectors: ArrayView2<'_, f32>) -> Result<()> {
    match vectors.indexed_iter().find(|(_, v)| !v.is_finite()) {
        None => Ok(()),
        Some(((row, _), _)) => {
            Err(Error::TextVectors(format!("the vector of item {row} is not finite")))
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    fn vectors() -> Array2<f32> {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        // The data have a large common direction and very unequal variances.
        Array2::from_shape_fn((300, 8), |(_, c)| {
            10.0 + rng.random_range(-1.0f32..1.0) * 0.2f32.powi(c as i32)
        })
    }

    #[test]
    fn components_are_uncorrelated_with_equal_variance_before_scaling() {
        let data = vectors();
        let config = WhitenConfig { components: 5, strength: 1.0 };
        let out = whiten(data.view(), &config).unwrap();
        assert_eq!(out.dim(), (300, 5));
        for row in out.rows() {
            assert!((row.dot(&row) - 1.0).abs() < 1e-5);
        }
        // The directions are spread evenly: the mean product of two components is 0, the mean
        // square of a component is a fifth.
        let second = out.t().dot(&out) / 300.0;
        for ((r, c), v) in second.indexed_iter() {
            let expected = if r == c { 0.2 } else { 0.0 };
            assert!((v - expected).abs() < 0.05, "({r}, {c}): {v}");
        }
        // Without whitening the first component dominates.
        let plain = whiten(data.view(), &WhitenConfig { strength: 0.0, ..config }).unwrap();
        assert!(plain.column(0).mapv(|v| v * v).sum() / 300.0 > 0.8);
    }

    #[test]
    fn items_without_text_stay_zero_and_have_no_effect() {
        let data = vectors();
        let mut more = Array2::zeros((301, 8));
        more.slice_mut(ndarray::s![1.., ..]).assign(&data);
        let config = WhitenConfig::default();
        let out = whiten(more.view(), &config).unwrap();
        assert!(out.row(0).iter().all(|&v| v == 0.0));
        assert_eq!(out.slice(ndarray::s![1.., ..]), whiten(data.view(), &config).unwrap());
    }

    #[test]
    fn directions_without_variance_are_left_out() {
        let mut data = vectors();
        data.column_mut(7).fill(4.0);
        let out = whiten(data.view(), &WhitenConfig::default()).unwrap();
        assert_eq!(out.ncols(), 7);
        assert!(out.iter().all(|v| v.is_finite()));
    }

    #[test]
    fn a_whitening_round_trips_and_applies_to_other_texts() {
        let data = vectors();
        let (known, new) = data.view().split_at(Axis(0), 200);
        let whitening = Whitening::fit(known, &WhitenConfig::default()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("whitening.safetensors");
        whitening.save(&path).unwrap();
        let loaded = Whitening::load(&path).unwrap();
        assert_eq!(loaded, whitening);
        assert_eq!(loaded.apply(new).unwrap(), whitening.apply(new).unwrap());
        let narrow = new.slice(ndarray::s![.., ..7]);
        let message = loaded.apply(narrow).unwrap_err().to_string();
        assert!(message.contains("7 dimensions") && message.contains('8'), "{message}");
        let bytes = std::fs::read(&path).unwrap();
        for cut in [0, 7, 30, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert!(Whitening::load(&path).unwrap_err().to_string().contains("whitening"));
        }
    }

    #[test]
    fn invalid_settings_and_data_are_errors() {
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
