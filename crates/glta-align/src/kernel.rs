//! What the head starts from: fixed scores of graph and text in closed form.

use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use glta_baselines::{Ease, EaseConfig, SideInformation, TextKnn, TextKnnConfig};
use glta_core::{pick, report, stream};
use glta_data::{Interactions, Split};
use glta_metrics::{EvaluationConfig, Metric, Scorer, ScorerError, evaluate};
use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut1, ArrayViewMut2, Axis};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::config::KernelConfig;
use crate::data::RunData;
use crate::files::{read_tensors, take, write_tensors};
use crate::optimizer::Tensors;
use crate::progress::{Event, Progress};
use crate::{Error, Result};

/// Users whose hidden items set the temperature.
const CALIBRATED: usize = 512;

/// What was chosen for the [kernel](crate::KernelConfig), on validation data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct KernelReport {
    /// λ, the L2 regularisation.
    pub l2: f64,
    /// α, the weight of the texts in the Gram matrix.
    pub text: f64,
    /// Weight of the text neighbours.
    pub neighbours: f32,
    /// Weight of the log degree.
    pub popularity: f32,
    /// Whether it was chosen for new items ([`KernelConfig::new_items`]): text
    /// neighbours then count `1 / (1 + degree)`, and an item that nobody has is as
    /// popular as the others are in the mean.
    #[serde(default)]
    pub new_items: bool,
    /// Logits are scores times this.
    pub temperature: f32,
    /// Validation N@10 of the kernel alone.
    pub validation: Option<f64>,
    /// The factor of the trained correction and the validation N@10 with it.
    pub mixed: Option<(f64, f64)>,
}

/// Scores of all items from the items a person has, with nothing trained by
/// gradient: EASE whose Gram matrix also counts the items' text vectors, text
/// neighbours, and popularity. Few numbers are chosen, on validation data.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    ease: Ease,
    /// What items add to each other as text neighbours: `(items, items)`.
    text: Option<Arc<Array2<f32>>>,
    /// Of the items in the training data.
    degrees: Vec<u32>,
    chosen: KernelReport,
}

impl Kernel {
    fn new(
        ease: Ease,
        text: Option<Arc<Array2<f32>>>,
        train: &Interactions,
        chosen: KernelReport,
    ) -> Self {
        Self { ease, text, degrees: train.item_degrees(), chosen }
    }

    /// Chooses the settings one after the other: l2 and the texts' weight in the
    /// Gram matrix, then the weights of neighbours and popularity. Without
    /// validation items the middle values of the first two lists are taken, and
    /// neighbours and popularity do not count.
    ///
    /// `vectors: (items, dim)` are whitened text vectors.
    pub(crate) fn fit(
        data: &RunData,
        vectors: Option<ArrayView2<'_, f32>>,
        config: &KernelConfig,
        seed: u64,
        progress: &mut Progress<'_>,
    ) -> Result<Self> {
        let RunData { train, valid, .. } = data;
        let text = vectors.map(|v| similarities(v, train)).transpose()?;
        let again = config.new_items > 0.0 && !valid.is_empty();
        let total = match valid.is_empty() {
            true => 1,
            false => config.l2.len() + vectors.map_or(0, |_| config.text.len() - 1),
        };
        let total = total + usize::from(again);
        let mut solver = Solver { vectors, text, config, progress, done: 0, total };
        let mut kernel = if again {
            let test = Interactions::empty(train.n_users(), train.n_items())?;
            let (train, valid) = (train.clone(), valid.clone());
            let split = Split { train, valid, test, cold_items: Vec::new() };
            let split = split.with_new_items(config.new_items, seed)?;
            let chosen = solver.choose(&split.train, &split.valid)?.chosen;
            let mut kernel = solver.solve(&data.train, chosen)?;
            kernel.chosen.validation = kernel.validation(&data.train, &data.valid)?;
            kernel
        } else {
            solver.choose(train, valid)?
        };
        kernel.chosen.temperature = kernel.calibrate(&data.train, seed)?;
        Ok(kernel)
    }

    fn try_weights(
        &mut self,
        train: &Interactions,
        valid: &Interactions,
        neighbours: f32,
        popularity: f32,
    ) -> Result<()> {
        let before = self.chosen.clone();
        self.chosen = KernelReport { neighbours, popularity, ..before.clone() };
        let validation = self.validation(train, valid)?;
        if validation > before.validation {
            self.chosen.validation = validation;
        } else {
            self.chosen = before;
        }
        Ok(())
    }

    pub(crate) fn report(&self, mixed: Option<(f64, f64)>) -> KernelReport {
        KernelReport { mixed, ..self.chosen.clone() }
    }

    fn validation(&self, train: &Interactions, valid: &Interactions) -> Result<Option<f64>> {
        if valid.is_empty() {
            return Ok(None);
        }
        let config = EvaluationConfig { ks: vec![10], ..EvaluationConfig::default() };
        let scorer = Known { kernel: self, train };
        Ok(evaluate(&scorer, valid, &[train], &config)?.get(Metric::Ndcg, 10))
    }

    /// Logits of all items for someone who has `context`. For a `hidden_from`
    /// user, those that fitting without this user would give: nothing of a pair
    /// that is to be predicted has been seen.
    pub(crate) fn logits(&self, context: &[u32], hidden_from: Option<u32>) -> Result<Vec<f32>> {
        let KernelReport { neighbours, popularity, temperature, .. } = self.chosen;
        let mut scores = match hidden_from {
            Some(user) => self.ease.score_without(user, context)?,
            None => self.ease.score_items(context),
        };
        // Without the user, the user's own items have one interaction less.
        let own: &[u32] = hidden_from.map_or(&[], |user| self.ease.history(user));
        if let Some(text) = self.text.as_ref().filter(|_| neighbours > 0.0) {
            let known = context.iter().filter(|&&item| (item as usize) < self.degrees.len());
            let rows = known.map(|&item| text.row(item as usize));
            if self.chosen.new_items {
                let mut sums = Array1::zeros(scores.len());
                rows.for_each(|row| sums += &row);
                let count = |degree: u32| neighbours / (1.0 + degree as f32);
                let all = scores.iter_mut().zip(&sums).zip(&self.degrees);
                all.for_each(|((s, sum), &degree)| *s += count(degree) * sum);
                for &item in own {
                    let (item, degree) = (item as usize, self.degrees[item as usize]);
                    scores[item] += (count(degree - 1) - count(degree)) * sums[item];
                }
            } else {
                let mut scores = ArrayViewMut1::from(&mut scores[..]);
                rows.for_each(|row| scores.scaled_add(neighbours, &row));
            }
        }
        if popularity > 0.0 {
            let new = if self.chosen.new_items { self.mean_log_degree(own) } else { 0.0 };
            let log = |degree: u32| match degree {
                0 => popularity * new,
                _ => popularity * (degree as f32).ln_1p(),
            };
            scores.iter_mut().zip(&self.degrees).for_each(|(s, &degree)| *s += log(degree));
            for &item in own {
                let degree = self.degrees[item as usize];
                scores[item as usize] += log(degree - 1) - log(degree);
            }
        }
        scores.iter_mut().for_each(|s| *s *= temperature);
        Ok(scores)
    }

    /// `ln(1 + degree)` in the mean over the items that somebody has, without someone
    /// who has `own`.
    fn mean_log_degree(&self, own: &[u32]) -> f32 {
        let log = |degree: u32| (degree as f32).ln_1p();
        let mut sum: f32 = self.degrees.iter().map(|&degree| log(degree)).sum();
        let mut had = self.degrees.iter().filter(|&&degree| degree > 0).count();
        for &item in own {
            let degree = self.degrees[item as usize];
            sum += log(degree - 1) - log(degree);
            had -= usize::from(degree == 1);
        }
        sum / had.max(1) as f32
    }

    /// [`logits`](Self::logits) of many: `(rows, items)`.
    pub(crate) fn rows<'a>(
        &self,
        queries: impl Iterator<Item = (&'a [u32], Option<u32>)>,
        device: &Device,
    ) -> Result<Tensor> {
        let queries: Vec<_> = queries.collect();
        let rows = queries.par_iter().map(|&(context, user)| self.logits(context, user));
        let rows = rows.collect::<Result<Vec<_>>>()?;
        Ok(Tensor::from_vec(rows.concat(), (rows.len(), self.degrees.len()), device)?)
    }

    /// The factor under which half of some users' items, scored without those
    /// users, have the largest likelihood given the other half. The kernel's own is
    /// still 1.
    fn calibrate(&self, train: &Interactions, seed: u64) -> Result<f32> {
        let mut random = stream(seed, "kernel temperature", &[]);
        let able: Vec<u32> =
            (0..train.n_users() as u32).filter(|&user| train.items(user).len() > 1).collect();
        let mut cases = Vec::new();
        for user in pick(&able, CALIBRATED, &mut random) {
            let items = train.items(user);
            let hidden = pick(items, items.len() / 2, &mut random);
            let context: Vec<u32> =
                items.iter().copied().filter(|i| hidden.binary_search(i).is_err()).collect();
            let mut scores = self.logits(&context, Some(user))?;
            context.iter().for_each(|&i| scores[i as usize] = f32::NEG_INFINITY);
            cases.push((scores, hidden));
        }
        let loss = |log: f64| -> f64 {
            let factor = log.exp();
            cases
                .iter()
                .map(|(scores, hidden)| {
                    let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let sum: f64 =
                        scores.iter().map(|&s| (factor * f64::from(s - top)).exp()).sum();
                    let hits: f64 =
                        hidden.iter().map(|&i| factor * f64::from(scores[i as usize] - top)).sum();
                    sum.ln() - hits / hidden.len() as f64
                })
                .sum()
        };
        // Golden section: the loss is convex in the factor.
        let (mut low, mut high) = (0.01f64.ln(), 10_000f64.ln());
        let ratio = (5f64.sqrt() - 1.0) / 2.0;
        while high - low > 0.01 && !cases.is_empty() {
            let (a, b) = (high - ratio * (high - low), low + ratio * (high - low));
            if loss(a) < loss(b) { high = b } else { low = a }
        }
        Ok(if cases.is_empty() { 1.0 } else { (0.5 * (low + high)).exp() as f32 })
    }

    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let items = self.degrees.len();
        let weights: Vec<f32> = self.ease.weights().iter().copied().collect();
        let mut tensors = Tensors::new();
        let weights = Tensor::from_vec(weights, (items, items), &Device::Cpu)?;
        tensors.insert("weights".into(), weights);
        tensors.insert("diagonal".into(), Tensor::new(self.ease.diagonal(), &Device::Cpu)?);
        let chosen = serde_json::to_string(&self.chosen).map_err(|e| Error::file(path, e))?;
        write_tensors(path, &tensors, &chosen)
    }

    /// Reads what [`save`](Self::save) wrote.
    pub(crate) fn load(
        path: &Path,
        train: &Interactions,
        vectors: Option<ArrayView2<'_, f32>>,
    ) -> Result<Self> {
        let (mut tensors, chosen) = read_tensors(path, &Device::Cpu)?;
        let chosen: KernelReport =
            serde_json::from_str(&chosen).map_err(|e| Error::file(path, e))?;
        let items = train.n_items();
        let weights = take(&mut tensors, path, "weights", &[items, items])?;
        let diagonal = take(&mut tensors, path, "diagonal", &[items])?;
        let weights =
            Array2::from_shape_vec((items, items), weights.flatten_all()?.to_vec1::<f32>()?)
                .map_err(|e| Error::file(path, e))?;
        let diagonal = diagonal.to_dtype(candle_core::DType::F64)?.to_vec1::<f64>()?;
        let vectors = vectors.filter(|_| chosen.neighbours > 0.0);
        let text = vectors.map(|v| similarities(v, train)).transpose()?;
        let ease = Ease::from_parts(weights, diagonal, train)?;
        Ok(Self::new(ease, text, train, chosen))
    }
}

/// Fits kernels of one set of text vectors and says how far it is.
struct Solver<'a, 'p> {
    vectors: Option<ArrayView2<'a, f32>>,
    text: Option<Arc<Array2<f32>>>,
    config: &'a KernelConfig,
    progress: &'a mut Progress<'p>,
    done: usize,
    total: usize,
}

impl Solver<'_, '_> {
    /// The kernel of these settings.
    fn solve(&mut self, train: &Interactions, chosen: KernelReport) -> Result<Kernel> {
        self.done += 1;
        report(self.progress, &Event::Kernel { done: self.done, total: self.total })?;
        let settings = EaseConfig { l2: chosen.l2, max_items: self.config.max_items };
        let weight = chosen.text;
        let ease = match self.vectors {
            Some(vectors) if weight > 0.0 => {
                Ease::fit_with(train, SideInformation { vectors, weight }, &settings)?
            }
            _ => Ease::fit(train, &settings)?,
        };
        Ok(Kernel::new(ease, self.text.clone(), train, chosen))
    }

    /// The kernel of the settings that are best on `valid`.
    fn choose(&mut self, train: &Interactions, valid: &Interactions) -> Result<Kernel> {
        let (config, texts) = (self.config, self.vectors.is_some());
        let middle = |list: &[f64]| list[list.len() / 2];
        let start = KernelReport {
            l2: middle(&config.l2),
            text: if texts { middle(&config.text) } else { 0.0 },
            neighbours: 0.0,
            popularity: 0.0,
            new_items: config.new_items > 0.0,
            temperature: 1.0,
            validation: None,
            mixed: None,
        };
        if valid.is_empty() {
            return self.solve(train, start);
        }
        let mut best: Option<Kernel> = None;
        let mut consider = |l2: f64, text: f64, best: &mut Option<Kernel>| -> Result<()> {
            let mut new = self.solve(train, KernelReport { l2, text, ..start.clone() })?;
            new.chosen.validation = new.validation(train, valid)?;
            if best.as_ref().is_none_or(|b| new.chosen.validation > b.chosen.validation) {
                *best = Some(new);
            }
            Ok(())
        };
        for &l2 in &config.l2 {
            consider(l2, start.text, &mut best)?;
        }
        let l2 = best.as_ref().map_or(start.l2, |k| k.chosen.l2);
        let others: &[f64] = if texts { &config.text } else { &[] };
        for &text in others.iter().filter(|&&text| text != start.text) {
            consider(l2, text, &mut best)?;
        }
        let mut kernel = best.ok_or(Error::Config {
            field: "kernel.l2",
            problem: "at least one value is needed".into(),
        })?;
        let neighbours: &[f64] = if texts { &config.neighbours } else { &[] };
        for &weight in neighbours {
            kernel.try_weights(train, valid, weight as f32, kernel.chosen.popularity)?;
        }
        for &weight in &config.popularity {
            kernel.try_weights(train, valid, kernel.chosen.neighbours, weight as f32)?;
        }
        Ok(kernel)
    }
}

fn similarities(vectors: ArrayView2<'_, f32>, train: &Interactions) -> Result<Arc<Array2<f32>>> {
    let text = TextKnn::new(vectors.to_owned(), train, &TextKnnConfig::default())?;
    Ok(Arc::new(text.similarities()))
}

/// The kernel's scores for users of the training data.
struct Known<'a> {
    kernel: &'a Kernel,
    train: &'a Interactions,
}

impl Scorer for Known<'_> {
    fn n_items(&self) -> usize {
        self.kernel.degrees.len()
    }

    fn score(
        &self,
        users: &[u32],
        mut out: ArrayViewMut2<'_, f32>,
    ) -> std::result::Result<(), ScorerError> {
        for (&user, mut row) in users.iter().zip(out.axis_iter_mut(Axis(0))) {
            let logits = self.kernel.logits(self.train.items(user), None)?;
            row.iter_mut().zip(logits).for_each(|(out, logit)| *out = logit);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use ndarray::array;

    use super::*;
    use crate::data::ItemRecord;

    /// Two tastes of four items each; item 7 is had by nobody but described like
    /// items 4 to 6.
    fn data() -> RunData {
        let item = |n: u32| ItemRecord {
            raw_id: n.to_string(),
            title: String::new(),
            text: String::new(),
        };
        let has = |u: u32, i: u32| i < 7 && u % 2 == i / 4 && !(u + i).is_multiple_of(3);
        let pairs: Vec<(u32, u32)> =
            (0..30).flat_map(|u| (0..8).map(move |i| (u, i))).filter(|&(u, i)| has(u, i)).collect();
        let valid = |&(u, i): &(u32, u32)| (u * 5 + i).is_multiple_of(4);
        let part = |wanted: bool| {
            let pairs = pairs.iter().copied().filter(|pair| valid(pair) == wanted);
            glta_data::Interactions::from_pairs(30, 8, pairs).unwrap()
        };
        RunData {
            users: (0..30).map(|u| u.to_string()).collect(),
            items: (0..8).map(item).collect(),
            train: part(false),
            valid: part(true),
        }
    }

    fn vectors() -> Array2<f32> {
        Array2::from_shape_fn((8, 2), |(i, c)| f32::from(u8::from(i / 4 == c)))
    }

    fn fit(data: &RunData, texts: Option<&Array2<f32>>) -> Kernel {
        let config =
            KernelConfig { l2: vec![1.0, 5.0], text: vec![1.0, 2.0], ..Default::default() };
        fit_with(data, texts, &config)
    }

    fn fit_with(data: &RunData, texts: Option<&Array2<f32>>, config: &KernelConfig) -> Kernel {
        let texts = texts.map(|t| t.view());
        Kernel::fit(data, texts, config, 1, &mut |_| ControlFlow::Continue(())).unwrap()
    }

    #[test]
    fn texts_reach_items_that_nobody_has() {
        let data = data();
        let with = fit(&data, Some(&vectors())).logits(&[4, 5], None).unwrap();
        assert!(with[7] > with[0] && with[7] > 0.0, "{with:?}");
        let without = fit(&data, None);
        assert_eq!(without.chosen.text, 0.0);
        assert_eq!(without.logits(&[4, 5], None).unwrap()[7], 0.0);
    }

    #[test]
    fn nothing_of_the_user_is_left_in_training_scores() {
        let data = data();
        for new_items in [0.0, 0.2] {
            nothing_of_the_user_is_left(&data, new_items);
        }
    }

    fn nothing_of_the_user_is_left(data: &RunData, new_items: f64) {
        // What is tried first of neighbours and popularity, however it does.
        let config =
            KernelConfig { l2: vec![1.0], text: vec![1.0], new_items, ..Default::default() };
        let mut kernel = fit_with(data, Some(&vectors()), &config);
        (kernel.chosen.neighbours, kernel.chosen.popularity) = (0.1, 0.01);
        let user = (0..30).find(|&u| data.train.items(u).len() > 1).unwrap();
        let context = &data.train.items(user)[..1];
        let rest = data.train.iter().filter(|&(u, _)| u != user);
        let train = Interactions::from_pairs(30, 8, rest).unwrap();
        let KernelReport { l2, text: weight, .. } = kernel.chosen;
        let vectors = vectors();
        let side = SideInformation { vectors: vectors.view(), weight };
        let ease = Ease::fit_with(&train, side, &EaseConfig { l2, ..Default::default() }).unwrap();
        let expected = Kernel::new(ease, kernel.text.clone(), &train, kernel.chosen.clone());
        let expected = expected.logits(context, None).unwrap();
        let got = kernel.logits(context, Some(user)).unwrap();
        for (got, expected) in got.iter().zip(&expected) {
            assert!((got - expected).abs() < 1e-3 * (1.0 + expected.abs()), "{got} {expected}");
        }
    }

    /// Settings are chosen without some items; what is kept was fitted with all.
    #[test]
    fn chosen_for_new_items_and_fitted_on_all() {
        let (data, vectors) = (data(), vectors());
        // Text neighbours are all that can find a new item here, and it takes little of them.
        let config = KernelConfig { l2: vec![1.0], text: vec![0.0], ..Default::default() };
        let without = fit_with(&data, Some(&vectors), &config);
        let config = KernelConfig { new_items: 0.4, ..config };
        let kernel = fit_with(&data, Some(&vectors), &config);
        assert!(kernel.chosen.neighbours > 0.0);
        assert_ne!(kernel.chosen.neighbours, without.chosen.neighbours);
        assert_eq!(kernel.ease.weights(), without.ease.weights());
        assert_eq!(kernel.degrees, data.train.item_degrees());
        let validation = kernel.validation(&data.train, &data.valid).unwrap();
        assert_eq!(kernel.chosen.validation, validation);
    }

    #[test]
    fn survives_its_file() {
        let (data, vectors) = (data(), vectors());
        let kernel = fit(&data, Some(&vectors));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernel");
        kernel.save(&path).unwrap();
        let loaded = Kernel::load(&path, &data.train, Some(vectors.view())).unwrap();
        assert_eq!(loaded.chosen, kernel.chosen);
        assert_eq!(loaded.logits(&[1, 5], None).unwrap(), kernel.logits(&[1, 5], None).unwrap());
        let fewer = Interactions::from_pairs(30, 7, []).unwrap();
        let message = Kernel::load(&path, &fewer, None).unwrap_err().to_string();
        assert!(message.contains("weights"), "{message}");
    }

    #[test]
    fn cancelling_and_impossible_lists_are_errors() {
        let config = KernelConfig::default();
        let result = Kernel::fit(&data(), None, &config, 1, &mut |_| ControlFlow::Break(()));
        assert!(matches!(result, Err(Error::Cancelled)));
        let other = array![[1.0, 0.0]];
        let result =
            Kernel::fit(
                &data(),
                Some(other.view()),
                &config,
                1,
                &mut |_| ControlFlow::Continue(()),
            );
        assert!(result.unwrap_err().to_string().contains("1 for 8"));
    }
}
