//! Small runs, trained in moments.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

use candle_core::Device;
use glta_align::{Backbone, Config, Density, LanguageModel, Preset, Run, RunData};
use glta_data::{Dataset, Interaction, Item, Split, SplitConfig, TextConfig};
use tempfile::TempDir;

pub(crate) const CPU: Device = Device::Cpu;

/// The folder of a run over users `user 0` to `user 11` and items `0` to `11`, `Tea 0` to
/// `Tea 5` and `Mug 6` to `Mug 11`: even users have the former, odd ones the latter.
pub(crate) fn run() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut config =
        Config { backbone: Backbone::None, ..Config::preset(Preset::Full, Density::Sparse) };
    config.graph.epochs = 20;
    config.graph.learning_rate = 0.05;
    config.user_stage.train.epochs = 2;
    Run::create(folder.path(), data(), config).unwrap().fit(None).unwrap();
    folder
}

/// The folder of a run of the same data with the checkpoint of [`llm`]; `prompt` says whether
/// its answers run a prompt.
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

/// The folder of a small language model.
pub(crate) fn llm() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/quickstart/llm")
}

/// Copies a folder's files, with a new time of writing.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::write(to.join(entry.file_name()), std::fs::read(entry.path()).unwrap()).unwrap();
    }
}

fn data() -> RunData {
    let title = |n: usize| format!("{} {n}", if n < 6 { "Tea" } else { "Mug" });
    let items: Vec<Item> = (0..12).map(|n| Item::titled(n.to_string(), title(n))).collect();
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
