//! Fits recommenders on all data, for serving.

use std::path::Path;
use std::sync::Arc;

use glta_core::Progress;
use glta_graph::{EpochReport, LightGcn};
use glta_linear::{LinearModel, LinearStep};

use crate::artifact::{load_data, load_vectors};
use crate::config::Config;
use crate::data::RunData;
use crate::encoders::ItemVectors;
use crate::files::{HISTORY, TEXTS, VECTORS};
use crate::language::LanguageModel;
use crate::progress::Event;
use crate::recommender::Recommender;
use crate::report::FitReport;
use crate::run::Run;
use crate::{Error, Result};

/// Fits a linear model for serving and saves a run in `dir`. The settings are chosen on the
/// validation part of `data`, and the model is then fitted on training and validation items. The
/// histories of its users contain all their interactions.
///
/// `vectors` are the text vectors of the items. They are empty for a catalogue without texts.
/// `config` is a configuration without a prompt path, such as
/// [`Preset::Default`](crate::Preset::Default).
///
/// ```
/// use glta_align::{Config, ItemVectors, RunData, fit_for_serving};
/// # use glta_core::Silent;
/// # use glta_data::{Dataset, ShopConfig, Split, SplitConfig, TextConfig};
/// # use glta_linear::TfIdfConfig;
/// # let shop = Dataset::shop(&ShopConfig { users: 60, items: 50, ..ShopConfig::default() })?;
/// # let folder = tempfile::tempdir()?;
/// # let dir = folder.path().join("shop");
///
/// let parts = SplitConfig { test_ratio: 0.0, valid_ratio: 0.2, ..SplitConfig::default() };
/// let data = RunData::new(&shop, &Split::new(&shop, &parts)?, &TextConfig::default())?;
/// let texts: Vec<&str> = data.items.iter().map(|item| item.text.as_str()).collect();
/// let words = ItemVectors::tf_idf(&texts, &TfIdfConfig::default())?;
/// let config = Config::default();
/// let (recommender, _) = fit_for_serving(&dir, data, config, &[words], &mut Silent)?;
/// assert_eq!(recommender.recommend(3, 5)?.len(), 5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Returns an error if the data or the configuration are invalid, if `config` has a prompt path, or
/// if the folder contains a run or cannot be written. Returns [`Error::Cancelled`] if `progress`
/// cancels.
pub fn fit_for_serving(
    dir: impl AsRef<Path>,
    data: RunData,
    config: Config,
    vectors: &[ItemVectors],
    progress: &mut dyn Progress<Event>,
) -> Result<(Recommender, FitReport)> {
    config.validate()?;
    data.validate()?;
    if config.model.prompt {
        return Err(Error::Config {
            field: "model.prompt".into(),
            problem: "a run with a prompt path must be trained by `Run::fit`".into(),
        });
    }
    if Run::exists(&dir) {
        return Err(Error::RunExists { path: dir.as_ref().to_owned() });
    }
    // If the configuration uses no text vectors, the given ones are ignored.
    let vectors = if config.reads_item_texts() { vectors } else { &[] };
    let text = match vectors {
        [] => None,
        some => Some(ItemVectors::join(some, &config.item_text.whiten)?.0),
    };
    let (linear, seed) = (&config.linear, config.seed);
    let RunData { train, valid, .. } = &data;
    let steps = &mut |step: &LinearStep| progress.report(&Event::Linear(*step));
    let chosen = LinearModel::fit_with(train, Some(valid), text.as_ref(), linear, seed, steps)?;
    let all = train.union(valid)?;
    let model = LinearModel::refit_with(chosen.report(), &all, text.as_ref(), linear, seed, steps)?;
    let valid = glta_data::Interactions::empty(all.n_users(), all.n_items())?;
    let data = RunData { train: Arc::new(all), valid, ..data };
    let run = Run::create(dir, data, config)?;
    run.set_item_vectors(vectors)?;
    run.set_linear(&model)?;
    run.fit_with(None, progress)
}

/// Fits the model of a measured run on all interactions, with the settings that the run has chosen,
/// and saves it as a run in `dir`.
///
/// The linear model is fitted again with the text vectors of the run. If the run's answers use the
/// prompt path, the graph and both alignment stages are trained again, which needs the `language`
/// model. The graph is trained for the number of epochs that is best on the validation part of
/// `data`, and the stages for the numbers that were best in the run.
///
/// `data` contains all interactions of the run's users and items, including the test items. Its
/// validation part, which may be small, only determines the number of epochs of the graph. The
/// model is then fitted on the validation part as well.
///
/// ```
/// use glta_align::{Config, Recommender, Run, RunData, finish_for_serving};
/// # use glta_align::ItemVectors;
/// # use glta_core::Silent;
/// # use glta_data::{Dataset, ShopConfig, Split, SplitConfig, TextConfig};
/// # use glta_linear::TfIdfConfig;
/// # let shop = Dataset::shop(&ShopConfig { users: 60, items: 50, ..ShopConfig::default() })?;
/// # let folder = tempfile::tempdir()?;
/// # let [measured, ready] = ["measured", "ready"].map(|name| folder.path().join(name));
/// # let texts = TextConfig::default();
/// // A fifth is held out to measure by.
/// let parts = SplitConfig { test_ratio: 0.2, valid_ratio: 0.1, ..SplitConfig::default() };
/// let data = RunData::new(&shop, &Split::new(&shop, &parts)?, &texts)?;
/// # let words: Vec<&str> = data.items.iter().map(|item| item.text.as_str()).collect();
/// # let vectors = [ItemVectors::tf_idf(&words, &TfIdfConfig::default())?];
/// let run = Run::create(&measured, data, Config::default())?;
/// # run.set_item_vectors(&vectors)?;
/// run.fit(None)?;
///
/// let parts = SplitConfig { test_ratio: 0.0, valid_ratio: 0.1, ..SplitConfig::default() };
/// let all = RunData::new(&shop, &Split::new(&shop, &parts)?, &texts)?;
/// let (recommender, _) = finish_for_serving(&measured, &ready, all, None, &mut Silent)?;
/// assert_eq!(recommender.history(3)?, shop.interactions().items(3));
/// assert!(Recommender::open(&measured)?.history(3)?.len() < recommender.history(3)?.len());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Returns [`Error::NoLlm`] if the run needs its language model, and [`Error::Cancelled`] if
/// `progress` cancels. Returns an error if the run is unfinished, if the users or items of the data
/// differ from those of the run, or if the folder contains a run or cannot be written.
pub fn finish_for_serving(
    run: impl AsRef<Path>,
    dir: impl AsRef<Path>,
    data: RunData,
    language: Option<&LanguageModel>,
    progress: &mut dyn Progress<Event>,
) -> Result<(Recommender, FitReport)> {
    let run = run.as_ref();
    data.validate()?;
    let mut config = Config::of_run(run)?;
    if !run.join(HISTORY).exists() {
        return Err(Error::file(
            &run.join(HISTORY),
            "missing, so the run has not ended; resume it",
        ));
    }
    let report = FitReport::read(&run.join(HISTORY))?;
    let known = load_data(run)?;
    if known.users != data.users || known.items != data.items {
        let problem = "the users and items are not those of the run to finish";
        return Err(Error::Data(problem.into()));
    }
    if Run::exists(&dir) {
        return Err(Error::RunExists { path: dir.as_ref().to_owned() });
    }
    let text = run.join(VECTORS);
    let text = if text.exists() { load_vectors(&text, &data)? } else { None };
    let all = data.train.union(&data.valid)?;
    let linear = match &report.linear {
        None => None,
        Some(chosen) => {
            let (linear, seed) = (&config.linear, config.seed);
            let steps = &mut |step: &LinearStep| progress.report(&Event::Linear(*step));
            Some(LinearModel::refit_with(chosen, &all, text.as_ref(), linear, seed, steps)?)
        }
    };
    let factor = report.mix.as_ref().map(|mix| mix.factor);
    if linear.is_some() && factor == Some(0.0) {
        config.model.prompt = false;
    }
    if config.model.prompt {
        config.graph.epochs = graph_epochs(&config, &data, progress)?;
        config.model.mix = vec![factor.unwrap_or(1.0)];
        for (train, history) in [
            (&mut config.item_stage.train, &report.item_stage),
            (&mut config.user_stage.train, &report.user_stage),
        ] {
            if let Some(best) = history.as_ref().and_then(|history| history.best_epoch) {
                train.epochs = best;
            }
        }
    }
    let prompt = config.model.prompt;
    let valid = glta_data::Interactions::empty(all.n_users(), all.n_items())?;
    let finished = Run::create(dir, RunData { train: Arc::new(all), valid, ..data }, config)?;
    finished.copy_item_vectors(run)?;
    if let Some(linear) = &linear {
        finished.set_linear(linear)?;
    }
    if prompt && run.join(TEXTS).exists() {
        finished.copy_texts(run)?;
    }
    finished.fit_with(language, progress)
}

/// Returns the number of epochs of graph pretraining that is best on the validation part.
fn graph_epochs(
    config: &Config,
    data: &RunData,
    progress: &mut dyn Progress<Event>,
) -> Result<usize> {
    if data.valid.is_empty() {
        return Ok(config.graph.epochs);
    }
    let epochs = &mut |epoch: &EpochReport| progress.report(&Event::Graph(epoch.clone()));
    let graph = LightGcn::new(config.graph.clone())?;
    Ok(graph.train_with(&data.train, Some(&data.valid), epochs)?.best_epoch)
}
