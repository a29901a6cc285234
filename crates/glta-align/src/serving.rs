//! A recommender of everything that is known.

use std::path::Path;
use std::sync::Arc;

use glta_core::Progress;
use glta_linear::{LinearModel, LinearStep};

use crate::config::Config;
use crate::data::RunData;
use crate::encoders::ItemVectors;
use crate::progress::Event;
use crate::recommender::Recommender;
use crate::report::FitReport;
use crate::run::Run;
use crate::{Error, Result};

/// Chooses the settings of the linear item model on the validation part of `data`, fits it with
/// them on training and validation items together, and saves a run in `dir` that is ready to
/// serve: its people's histories are all their interactions.
///
/// `vectors` are those of the items' texts, none for a catalogue without texts. `config` must be
/// without a path through the prompt ([`Preset::Default`](crate::Preset::Default)).
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
/// Data or a configuration that cannot be used, a folder that holds a run or cannot be written,
/// [`Error::Cancelled`].
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
            problem: "a run with a path through the prompt is trained by `Run::fit`".into(),
        });
    }
    if Run::exists(&dir) {
        return Err(Error::RunExists { path: dir.as_ref().to_owned() });
    }
    // None where the run has no use for them.
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
    let model = LinearModel::refit(chosen.report(), &all, text.as_ref(), linear, seed, steps)?;
    let valid = glta_data::Interactions::empty(all.n_users(), all.n_items())?;
    let data = RunData { train: Arc::new(all), valid, ..data };
    let run = Run::create(dir, data, config)?;
    run.set_item_vectors(vectors)?;
    run.set_linear(&model)?;
    run.fit_with(None, progress)
}
