//! Creates small runs that are trained in a moment.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

use candle_core::Device;
use glta_align::{
    Backbone, Config, Density, ItemEncoder, ItemVectors, LanguageModel, Preset, Run, RunData,
    fit_for_serving,
};
use glta_comm::Alone;
use glta_core::Silent;
use glta_data::{Dataset, Interaction, Item, Split, SplitConfig, TextConfig};
use tempfile::TempDir;

pub(crate) const CPU: Device = Device::Cpu;

/// Returns the folder of a run with users `user 0` to `user 11` and items `0` to `11`: `Tea 0` to
/// `Tea 5` for even users, `Mug 6` to `Mug 11` for odd users.
pub(crate) fn run() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut config =
        Config { backbone: Backbone::None, ..Config::preset(Preset::Full, Density::Sparse) };
    config.graph.epochs = 20;
    config.graph.learning_rate = 0.05;
    config.user_stage.train.epochs = 2;
    // Make the answers run the trained correction, whatever validation would choose.
    config.model.mix = vec![1.0];
    Run::create(folder.path(), data(), config).unwrap().fit(None).unwrap();
    folder
}

/// Returns the folder of a run of the same data with the checkpoint of [`llm`]. `prompt` states
/// whether its answers run a prompt.
pub(crate) fn run_with_language(prompt: bool) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::preset(Preset::Full, Density::Sparse);
    (config.texts.profile, config.texts.prediction) = (false, false);
    config.llm.layers = Some(1);
    config.graph.epochs = 2;
    config.item_stage.enabled = false;
    config.user_stage.train.epochs = 1;
    config.model.prompt = prompt;
    if prompt {
        config.model.mix = vec![1.0];
    }
    let language = LanguageModel::load(llm(), &config.llm, &CPU).unwrap();
    Run::create(folder.path(), data(), config).unwrap().fit(Some(&language)).unwrap();
    folder
}

/// Returns a folder with `model`, a recommender of the same data by `fit_for_serving` with TF-IDF
/// vectors, which accepts new items.
pub(crate) fn run_for_growth() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config { backbone: Backbone::None, ..Config::default() };
    config.item_text.encoders = vec![ItemEncoder::TfIdf];
    // With as many components as items, all items would have equal distances.
    config.item_text.whiten.components = 4;
    fit(&folder.path().join("model"), config, |texts, config| {
        ItemVectors::tf_idf(texts, &config.item_text.tf_idf).unwrap()
    });
    folder
}

/// Returns such a folder with vectors of the language model of [`llm`].
pub(crate) fn run_for_growth_by_language() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.item_text.encoders = vec![ItemEncoder::LanguageModel];
    config.item_text.language_model.layers = 1;
    fit(&folder.path().join("model"), config, |texts, config| {
        let mut options = config.llm.clone();
        options.layers = Some(1);
        let language = LanguageModel::load(llm(), &options, &CPU).unwrap();
        let how = &config.item_text.language_model;
        ItemVectors::language_model_on(&language, &Alone, texts, how, &mut Silent).unwrap()
    });
    folder
}

fn fit(dir: &Path, config: Config, vectors: impl FnOnce(&[String], &Config) -> ItemVectors) {
    let data = data();
    let texts: Vec<String> = data.items.iter().map(|item| item.text.clone()).collect();
    let vectors = vectors(&texts, &config);
    fit_for_serving(dir, data, config, &[vectors], &mut Silent).unwrap();
}

/// Returns the folder of a small language model.
pub(crate) fn llm() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/llm")
}

/// Copies the files of a folder, with a new modification time.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::write(to.join(entry.file_name()), std::fs::read(entry.path()).unwrap()).unwrap();
    }
}

fn data() -> RunData {
    let kind = |n: usize| if n < 6 { "Tea" } else { "Mug" };
    let title = |n: usize| format!("{} {n}", kind(n));
    let item = |n: usize| {
        let mut item = Item::titled(n.to_string(), title(n));
        item.other.insert("kind".into(), kind(n).into());
        let words = match kind(n) {
            "Tea" => ["green leaf", "steamed", "spring harvest", "hand picked", "from a garden"],
            _ => ["white clay", "glazed", "with a handle", "dish washer safe", "from a kiln"],
        };
        item.description = [0, 1, 2].map(|i| words[(n + i) % 5]).join(", ");
        item
    };
    let items: Vec<Item> = (0..12).map(item).collect();
    let users: Vec<String> = (0..12).map(|n| format!("user {n}")).collect();
    let mut events = Vec::new();
    for (u, user) in users.iter().enumerate() {
        for i in (0..6).filter(|i| (u / 2 + i) % 6 != 0) {
            events.push((user.as_str(), (i + 6 * (u % 2)).to_string()));
        }
    }
    let events = events.iter().map(|(user, item)| Interaction::new(user, item));
    let dataset = Dataset::from_interactions("tastes", events, items).unwrap();
    let split = Split::new(&dataset, &SplitConfig::default()).unwrap();
    RunData::new(&dataset, &split, &TextConfig::default()).unwrap()
}
