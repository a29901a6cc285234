//! Choice of settings on validation data.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Result, settings};

/// Values to try for some fields of a configuration; every combination is a candidate.
///
/// The keys are field names, with dots for nested fields. In TOML:
///
/// ```toml
/// l2 = [1e-4, 1e-3]
/// learning_rate = [0.005, 0.01]
/// "selection.k" = [20]
/// ```
///
/// A grid works on any serde configuration:
///
/// ```
/// use glta_core::{Grid, search};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Serialize, Deserialize)]
/// struct Config {
///     l2: f64,
///     layers: usize,
/// }
///
/// let grid: Grid = toml::from_str("l2 = [0.0001, 0.001]\nlayers = [2, 3]")?;
/// let candidates = grid.candidates(&Config { l2: 0.0, layers: 1 })?;
/// assert_eq!(candidates.len(), 4);
/// // This closure would train a model and return its validation score.
/// let found = search(&candidates, |c| Ok::<_, ()>((c.layers as f64, ()))).unwrap();
/// assert_eq!(found.best_trial().unwrap().config.layers, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Grid(pub BTreeMap<String, Vec<Value>>);

impl Grid {
    /// Applies all combinations of the values to `base` and returns the configurations. The last
    /// field varies fastest.
    ///
    /// # Errors
    /// Returns [`Error::Setting`](crate::Error::Setting) if the grid lists no values for a field or
    /// a value does not fit its field, and [`Error::UnknownSetting`](crate::Error::UnknownSetting)
    /// if the configuration lacks a field of the grid.
    pub fn candidates<C: Serialize + DeserializeOwned>(&self, base: &C) -> Result<Vec<C>> {
        let mut all = vec![settings::tree(base)?];
        for (path, values) in &self.0 {
            if values.is_empty() {
                return Err(settings::invalid(path, "has no values"));
            }
            let mut next = Vec::with_capacity(all.len() * values.len());
            for candidate in &all {
                for value in values {
                    let mut candidate = candidate.clone();
                    settings::put::<C>(&mut candidate, &[], settings::nested(path, value.clone()))?;
                    next.push(candidate);
                }
            }
            all = next;
        }
        all.iter().map(settings::parsed).collect()
    }
}

/// A candidate of a [`search`], with its score.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trial<C> {
    /// Configuration that was fitted.
    pub config: C,
    /// Score on validation data; higher is better.
    pub score: f64,
    /// Wall time of the fit, in seconds.
    pub seconds: f64,
}

/// Result of [`search`]: all trials and the best model.
#[derive(Debug, Clone)]
pub struct Search<C, M> {
    /// Trials in the order of the candidates.
    pub trials: Vec<Trial<C>>,
    /// Index and model of the trial with the highest score; the first one on a tie.
    pub best: Option<(usize, M)>,
}

impl<C, M> Search<C, M> {
    /// Returns the trial with the highest score; `None` if no candidate was tried or every score is
    /// NaN.
    pub fn best_trial(&self) -> Option<&Trial<C>> {
        self.trials.get(self.best.as_ref()?.0)
    }
}

/// Fits every candidate and keeps the model with the highest score. `fit` returns the score on
/// validation data and the model.
///
/// ```
/// use glta_core::search;
///
/// // `fit` returns the score on validation data and the model.
/// let fit = |&l2: &f64| Ok::<_, std::io::Error>((-(l2 - 2.0).abs(), l2));
/// let found = search(&[1.0, 2.0, 3.0], fit)?;
/// assert_eq!(found.best, Some((1, 2.0)));
/// assert_eq!(found.trials.len(), 3);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// Returns the first error of `fit`.
pub fn search<C: Clone, M, E>(
    candidates: &[C],
    mut fit: impl FnMut(&C) -> std::result::Result<(f64, M), E>,
) -> std::result::Result<Search<C, M>, E> {
    let mut trials: Vec<Trial<C>> = Vec::with_capacity(candidates.len());
    let mut best: Option<(usize, M)> = None;
    for config in candidates {
        let clock = Instant::now();
        let (score, model) = fit(config)?;
        let leader = best.as_ref().map(|(index, _)| trials[*index].score);
        if !score.is_nan() && leader.is_none_or(|leader| score > leader) {
            best = Some((trials.len(), model));
        }
        trials.push(Trial {
            config: config.clone(),
            score,
            seconds: clock.elapsed().as_secs_f64(),
        });
    }
    Ok(Search { trials, best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Config {
        l2: f64,
        layers: usize,
        loss: Loss,
        selection: Selection,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Loss {
        Bpr,
        Softmax { temperature: f64 },
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Selection {
        k: usize,
    }

    fn candidates(toml: &str) -> Result<Vec<Config>> {
        let grid: Grid = toml::from_str(toml).unwrap();
        let selection = Selection { k: 20 };
        grid.candidates(&Config { l2: 0.0, layers: 3, loss: Loss::Bpr, selection })
    }

    #[test]
    fn every_combination_once_and_the_rest_untouched() {
        let all = candidates(
            "l2 = [0.001, 0.01]\n\"selection.k\" = [5, 20, 50]\n\
             loss = [\"bpr\", { softmax = { temperature = 0.5 } }]",
        )
        .unwrap();
        assert_eq!(all.len(), 12);
        let count = |f: &dyn Fn(&Config) -> bool| all.iter().filter(|c| f(c)).count();
        assert_eq!(count(&|c| c.l2 == 0.01), 6);
        assert_eq!(count(&|c| c.selection.k == 20), 4);
        assert_eq!(count(&|c| c.loss == Loss::Bpr), 6);
        assert!(all.iter().all(|c| c.layers == 3));
    }

    #[test]
    fn mistakes_name_the_field() {
        for (toml, expected) in [
            ("lr = [1]", "`lr` does not exist"),
            ("\"selection.n\" = [1]", "near names: k"),
            ("\"layers.n\" = [1]", "`layers`"),
            ("layers = [\"three\"]", "layers"),
            ("layers = []", "no values"),
        ] {
            let message = candidates(toml).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn the_first_of_equals_wins_and_nan_never() {
        let scores = [f64::NAN, 0.2, 0.5, 0.5, 0.1];
        let found = search(&[0, 1, 2, 3, 4], |&k| Ok::<_, ()>((scores[k], k * 10))).unwrap();
        assert_eq!(found.best, Some((2, 20)));
        assert_eq!(found.trials.len(), 5);
        let none = search(&[0], |_| Ok::<_, ()>((f64::NAN, ()))).unwrap();
        assert!(none.best_trial().is_none());
        assert!(search(&[1], |_| Err::<(f64, ()), _>("broken")).is_err());
    }
}
