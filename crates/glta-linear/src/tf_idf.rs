//! TF-IDF text vectors.

mod read;

use std::error::Error as StdError;
use std::path::Path;

use glta_core::{Progress, Silent, TextEncoder, pick, report, stream};
use glta_linalg::symmetric_eigen;
use ndarray::{Array2, Axis};
use rand::Rng;
use rayon::prelude::*;
use rustc_hash::FxHashMap;
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use crate::solve::small::orthonormalise;
use crate::tensors::{TensorFile, Tensors, bytes_f32};
use crate::{Error, Result};

use read::terms;

/// Number of texts between two progress reports.
const BATCH: usize = 4096;
/// Number of columns of the block beyond the dimensions.
const MORE: usize = 32;
/// Number of subspace iterations.
const ITERATIONS: usize = 5;

/// Settings of [`TfIdf`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TfIdfConfig {
    /// Maximum number of words per text. Default 80.
    pub max_words: usize,
    /// Minimum number of texts that contain a term. Default 2.
    pub min_texts: usize,
    /// Maximum number of terms; the most frequent terms are kept. Default 200,000.
    pub max_terms: usize,
    /// Number of dimensions; fewer if there are fewer texts or terms. Default 256.
    pub dimensions: usize,
    /// Maximum number of texts for the choice of terms and dimensions. A larger number of texts is
    /// sampled. Default 50,000.
    pub max_texts: usize,
}

impl Default for TfIdfConfig {
    fn default() -> Self {
        Self { max_words: 80, min_texts: 2, max_terms: 200_000, dimensions: 256, max_texts: 50_000 }
    }
}

impl TfIdfConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// Returns [`Error::Config`] for a size of 0.
    pub fn validate(&self) -> Result<()> {
        let sizes = [
            ("max_words", self.max_words),
            ("min_texts", self.min_texts),
            ("max_terms", self.max_terms),
            ("dimensions", self.dimensions),
            ("max_texts", self.max_texts),
        ];
        match sizes.into_iter().find(|&(_, size)| size == 0) {
            None => Ok(()),
            Some((field, _)) => {
                let problem = "must be at least 1".into();
                Err(Error::Config { system: "TF-IDF", field, problem })
            }
        }
    }
}

/// A text encoder that needs no language model.
///
/// Words and pairs of words are weighted by `(1 + ln tf) · (ln((1 + n) / (1 + df)) + 1)`, scaled to
/// unit norm, and reduced by a truncated SVD (latent semantic analysis; Deerwester et al. 1990).
///
/// ```
/// use glta_core::{Silent, TextEncoder};
/// use glta_linear::{TfIdf, TfIdfConfig};
///
/// let texts = ["green tea", "black tea", "oak table", "round oak table"].map(String::from);
/// let encoder = TfIdf::fit(&texts, &TfIdfConfig::default())?;
/// let new = encoder.encode(&["white tea".into(), "small table".into()], &mut Silent)?;
/// let old = encoder.encode(&texts, &mut Silent)?;
/// assert!(new.row(0).dot(&old.row(0)) > new.row(0).dot(&old.row(2)));
/// assert!(new.row(1).dot(&old.row(2)) > new.row(1).dot(&old.row(0)));
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct TfIdf {
    max_words: usize,
    terms: FxHashMap<String, u32>,
    /// Inverse document frequencies, `(terms,)`.
    idf: Vec<f32>,
    /// Right singular vectors, `(terms, dimensions)`.
    components: Array2<f32>,
}

/// Terms of a text and their weights.
type Row = Vec<(u32, f32)>;

impl TfIdf {
    /// Fits an encoder to texts: chooses the terms, and computes the components by a truncated SVD.
    ///
    /// # Errors
    /// Returns an error for invalid settings, or if no term occurs in at least `min_texts` texts.
    pub fn fit(texts: &[impl AsRef<str> + Sync], config: &TfIdfConfig) -> Result<Self> {
        Self::fit_with(texts, config, &mut Silent)
    }

    /// Fits an encoder like [`fit`](Self::fit) and reports the finished steps and their total
    /// number.
    ///
    /// # Errors
    /// Returns the errors of [`fit`](Self::fit), and [`Error::Cancelled`].
    pub fn fit_with(
        texts: &[impl AsRef<str> + Sync],
        config: &TfIdfConfig,
        progress: &mut dyn Progress<(usize, usize)>,
    ) -> Result<Self> {
        config.validate()?;
        let mut steps = Steps { progress, done: 0 };
        let all: Vec<u32> = (0..texts.len() as u32).collect();
        let sample = pick(&all, config.max_texts, &mut stream(0, "TF-IDF texts", &[]));
        let text = |at: u32| texts[at as usize].as_ref();
        let mut counts: FxHashMap<String, u32> = FxHashMap::default();
        for (nth, &at) in sample.iter().enumerate() {
            if nth.is_multiple_of(BATCH) {
                steps.report()?;
            }
            let mut own = terms(text(at), config.max_words);
            own.sort_unstable();
            own.dedup();
            own.into_iter().for_each(|term| *counts.entry(term).or_default() += 1);
        }
        let mut kept: Vec<(String, u32)> =
            counts.into_iter().filter(|&(_, n)| n as usize >= config.min_texts).collect();
        kept.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        kept.truncate(config.max_terms);
        if kept.is_empty() {
            return Err(Error::TextVectors(format!(
                "no word occurs in {} of the {} texts",
                config.min_texts,
                sample.len()
            )));
        }
        let n = sample.len() as f32;
        let idf = kept.iter().map(|&(_, df)| ((1.0 + n) / (1.0 + df as f32)).ln() + 1.0).collect();
        let terms: FxHashMap<String, u32> =
            kept.into_iter().zip(0..).map(|((term, _), id)| (term, id)).collect();
        let components = Array2::zeros((terms.len(), 0));
        let mut encoder = Self { max_words: config.max_words, terms, idf, components };
        steps.next()?;
        let rows: Vec<Row> = sample.par_iter().map(|&at| encoder.row(text(at))).collect();
        steps.next()?;
        let terms = encoder.terms.len();
        encoder.components = components_of(&rows, terms, config.dimensions, &mut steps)?;
        Ok(encoder)
    }

    /// Returns the known terms of a text, in ascending order, with weights of unit norm.
    fn row(&self, text: &str) -> Row {
        let mut ids: Vec<u32> = terms(text, self.max_words)
            .iter()
            .filter_map(|term| self.terms.get(term).copied())
            .collect();
        ids.sort_unstable();
        let mut row: Row = Vec::new();
        for id in ids {
            match row.last_mut() {
                Some((last, count)) if *last == id => *count += 1.0,
                _ => row.push((id, 1.0)),
            }
        }
        let mut square = 0.0;
        for (id, weight) in &mut row {
            *weight = (1.0 + weight.ln()) * self.idf[*id as usize];
            square += *weight * *weight;
        }
        let length = square.sqrt();
        row.iter_mut().for_each(|(_, weight)| *weight /= length);
        row
    }

    /// Saves the encoder as safetensors: `terms` (U8, one per line), `idf` (F32, `(terms,)`) and
    /// `components` (F32, `(terms, dimensions)`).
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let mut terms = vec![""; self.terms.len()];
        for (term, &id) in &self.terms {
            terms[id as usize] = term;
        }
        let terms = terms.join("\n").into_bytes();
        let mut file = TensorFile::default();
        file.put("terms", Dtype::U8, vec![terms.len()], terms);
        file.put("idf", Dtype::F32, vec![self.idf.len()], bytes_f32(self.idf.iter()));
        file.matrix("components", &self.components);
        file.write(path.as_ref(), Some(self.max_words.to_string()))
    }

    /// Loads an encoder that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is damaged.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let read = || -> std::result::Result<Self, String> {
            let file = Tensors::parse(&bytes)?;
            let max_words = file.header()?.parse().map_err(|_| "its header is not a number")?;
            let terms = String::from_utf8(file.bytes("terms")?).map_err(|e| e.to_string())?;
            let lines = terms.split('\n').count();
            let terms: FxHashMap<String, u32> =
                terms.split('\n').zip(0..).map(|(term, id)| (term.to_owned(), id)).collect();
            if terms.len() != lines {
                return Err("a term occurs twice".into());
            }
            let idf = file.f32("idf", terms.len())?;
            let components = file.matrix("components", terms.len(), None)?;
            Ok(Self { max_words, terms, idf, components })
        };
        read().map_err(|e| Error::file(path, format!("not a readable TF-IDF encoder: {e}")))
    }
}

impl TextEncoder for TfIdf {
    fn name(&self) -> &str {
        "TF-IDF"
    }

    fn dim(&self) -> usize {
        self.components.ncols()
    }

    fn encode(
        &self,
        texts: &[String],
        progress: &mut dyn Progress<(usize, usize)>,
    ) -> std::result::Result<Array2<f32>, Box<dyn StdError + Send + Sync>> {
        let mut out = Array2::zeros((texts.len(), self.dim()));
        for (nth, (batch, mut rows)) in
            texts.chunks(BATCH).zip(out.axis_chunks_iter_mut(Axis(0), BATCH)).enumerate()
        {
            rows.axis_iter_mut(Axis(0)).into_par_iter().zip(batch).for_each(|(mut to, text)| {
                for (term, weight) in self.row(text) {
                    to.scaled_add(weight, &self.components.row(term as usize));
                }
            });
            report(progress, &(nth * BATCH + batch.len(), texts.len()))?;
        }
        Ok(out)
    }
}

/// A counter of the steps of a fit, which reports progress.
struct Steps<'a> {
    progress: &'a mut dyn Progress<(usize, usize)>,
    done: usize,
}

impl Steps<'_> {
    /// Number of steps: counting terms, weighting them, and the parts of [`components_of`].
    const ALL: usize = 2 + 3 * ITERATIONS + 2;

    fn report(&mut self) -> Result<()> {
        Ok(report(self.progress, &(self.done, Self::ALL))?)
    }

    fn next(&mut self) -> Result<()> {
        self.done += 1;
        self.report()
    }
}

/// Returns the right singular vectors of the `dimensions` largest singular values of sparse rows
/// with `terms` columns, `(terms, dimensions)`. The method is randomised subspace iteration (Halko,
/// Martinsson and Tropp 2011, "Finding Structure with Randomness").
fn components_of(
    rows: &[Row],
    terms: usize,
    dimensions: usize,
    steps: &mut Steps<'_>,
) -> Result<Array2<f32>> {
    let mut columns: Vec<Row> = vec![Vec::new(); terms];
    for (text, row) in rows.iter().enumerate() {
        row.iter().for_each(|&(term, weight)| columns[term as usize].push((text as u32, weight)));
    }
    let width = (dimensions + MORE).min(rows.len()).min(terms);
    let mut random = stream(0, "TF-IDF dimensions", &[]);
    let mut block = Array2::from_shape_simple_fn((terms, width), || {
        if random.random::<bool>() { 1.0 } else { -1.0 }
    });
    for _ in 0..ITERATIONS {
        orthonormalise(&mut block)?;
        steps.next()?;
        let image = times(rows, &block);
        steps.next()?;
        block = times(&columns, &image);
        steps.next()?;
    }
    orthonormalise(&mut block)?;
    steps.next()?;
    // Rotate the block to the singular vectors, the largest first.
    let image = times(rows, &block);
    let products = image.t().dot(&image);
    steps.next()?;
    let eigen = symmetric_eigen(products, dimensions.min(width))?;
    Ok(block.dot(&eigen.vectors.t()).mapv(|v| v as f32).as_standard_layout().into_owned())
}

/// Multiplies sparse rows by a matrix.
fn times(rows: &[Row], by: &Array2<f64>) -> Array2<f64> {
    let mut out = Array2::zeros((rows.len(), by.ncols()));
    out.axis_iter_mut(Axis(0)).into_par_iter().zip(rows).for_each(|(mut out, row)| {
        for &(column, weight) in row {
            out.scaled_add(f64::from(weight), &by.row(column as usize));
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;

    fn texts() -> Vec<String> {
        let things = ["tea", "coffee", "table", "chair", "lamp", "book"];
        let kinds = ["green", "black", "oak", "round", "small", "old", "new"];
        let mut texts: Vec<String> = things
            .iter()
            .flat_map(|thing| kinds.iter().map(move |kind| format!("A {kind} {thing}, {kind}!")))
            .collect();
        texts.push(String::new());
        texts.push("unheard".into());
        texts
    }

    #[test]
    fn products_equal_those_of_the_weighted_terms() {
        let texts = texts();
        let config = TfIdfConfig { dimensions: 1000, ..TfIdfConfig::default() };
        let encoder = TfIdf::fit(&texts, &config).unwrap();
        let vectors = encoder.encode(&texts, &mut Silent).unwrap();
        let rows: Vec<Row> = texts.iter().map(|text| encoder.row(text)).collect();
        for (a, x) in rows.iter().enumerate() {
            for (b, y) in rows.iter().enumerate() {
                let product: f32 = x
                    .iter()
                    .flat_map(|p| y.iter().filter(move |q| p.0 == q.0).map(move |q| p.1 * q.1))
                    .sum();
                let got = vectors.row(a).dot(&vectors.row(b));
                assert!((got - product).abs() < 1e-4, "{a} {b} {got} {product}");
            }
        }
        // The last two texts have no known terms.
        assert!(vectors.slice(ndarray::s![-2.., ..]).iter().all(|&v| v == 0.0));
    }

    /// The expected weights are computed by hand. `n` is 44. "tea" is in 7 texts. "green" (twice in
    /// each) and the pair "green tea" are in 6, "a green" in 6, "tea green" in 1.
    #[test]
    fn weights_equal_the_formula() {
        let encoder = TfIdf::fit(&texts(), &TfIdfConfig::default()).unwrap();
        let weight = |term: &str| {
            let row = encoder.row("green tea green");
            let id = encoder.terms[term];
            row.iter().find(|(other, _)| *other == id).unwrap().1
        };
        let idf = |df: f32| (45.0 / (1.0 + df)).ln() + 1.0;
        let ratio = weight("green") / weight("tea");
        let expected = (1.0 + 2f32.ln()) * idf(6.0) / idf(7.0);
        assert!((ratio - expected).abs() < 1e-5, "{ratio} {expected}");
        assert!(!encoder.terms.contains_key("tea green"), "in one text only");
    }

    #[test]
    fn fewer_dimensions_are_the_best_of_their_number() {
        let texts = texts();
        let vectors = |dimensions| {
            let config = TfIdfConfig { dimensions, ..TfIdfConfig::default() };
            TfIdf::fit(&texts, &config).unwrap().encode(&texts, &mut Silent).unwrap()
        };
        let (all, few) = (vectors(1000), vectors(4));
        let covered = few.iter().map(|v| v * v).sum::<f32>();
        // The columns of all dimensions are sorted by size.
        let best = all.slice(ndarray::s![.., ..4]).iter().map(|v| v * v).sum::<f32>();
        assert!((covered - best).abs() < 1e-2 * best, "{covered} {best}");
    }

    #[test]
    fn a_fit_reports_its_steps_and_can_be_cancelled() {
        let (texts, config) = (texts(), TfIdfConfig::default());
        let mut seen = Vec::new();
        let mut keep = |step: &(usize, usize)| {
            seen.push(*step);
            ControlFlow::Continue(())
        };
        let fitted = TfIdf::fit_with(&texts, &config, &mut keep).unwrap();
        assert_eq!(fitted, TfIdf::fit(&texts, &config).unwrap());
        assert_eq!((seen[0].0, *seen.last().unwrap()), (0, (Steps::ALL, Steps::ALL)));
        for stop in 0..seen.len() {
            let mut calls = 0;
            let mut stops = |_: &(usize, usize)| {
                calls += 1;
                if calls > stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let stopped = TfIdf::fit_with(&texts, &config, &mut stops);
            assert!(matches!(stopped, Err(Error::Cancelled)), "{stop}");
        }
    }

    #[test]
    fn round_trips_through_its_file() {
        let texts = texts();
        let encoder = TfIdf::fit(&texts, &TfIdfConfig::default()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tf_idf.safetensors");
        encoder.save(&path).unwrap();
        assert_eq!(TfIdf::load(&path).unwrap(), encoder);
        let bytes = std::fs::read(&path).unwrap();
        for cut in [0, 7, 30, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert!(TfIdf::load(&path).unwrap_err().to_string().contains("TF-IDF"));
        }
    }

    #[test]
    fn invalid_settings_and_data_are_errors() {
        let none = TfIdf::fit(&["one", "two"], &TfIdfConfig::default()).unwrap_err();
        assert!(none.to_string().contains("no word occurs in 2 of the 2"), "{none}");
        let config = TfIdfConfig { dimensions: 0, ..TfIdfConfig::default() };
        assert!(matches!(TfIdf::fit(&texts(), &config), Err(Error::Config { .. })));
    }
}
