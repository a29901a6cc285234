//! A small catalogue, its users, and settings for a short training.

use std::path::Path;

use candle_core::Device;
use glta::graph::LightGcnConfig;
use glta::llm::LlamaOptions;
use glta::prelude::*;

use crate::tiny_llm;

/// Two tastes: even users choose among the first half of the items.
pub(crate) fn split() -> (Dataset, Split) {
    let items: Vec<Item> =
        (0..20).map(|n| Item::titled(n.to_string(), format!("Film {n} (19{n:02})"))).collect();
    let users: Vec<String> = (0..24).map(|n| format!("u{n}")).collect();
    let mut interactions = Vec::new();
    for (u, user) in users.iter().enumerate() {
        for i in 0..10 {
            if (u / 2 * 3 + i * 7) % 10 < 7 {
                interactions.push((user.as_str(), (i + 10 * (u % 2)).to_string()));
            }
        }
    }
    let interactions = interactions.iter().map(|(user, item)| Interaction::new(user, item));
    let dataset = Dataset::from_interactions("tastes", interactions, items).unwrap();
    let split = Split::new(&dataset, &SplitConfig::default()).unwrap();
    (dataset, split)
}

pub(crate) fn data() -> RunData {
    let (dataset, split) = split();
    RunData::new(&dataset, &split, &TextConfig::default()).unwrap()
}

pub(crate) fn config(preset: Preset) -> Config {
    let mut config = Config::preset(preset, Density::Dense);
    if preset == Preset::Full {
        // Everything that a prompt can contain.
        config.model.history = 5;
        (config.texts.profile, config.texts.prediction) = (true, true);
    }
    config.llm.layers = None;
    config.linear.l2 = vec![10.0, 30.0, 100.0, 300.0];
    config.graph =
        LightGcnConfig { epochs: 30, learning_rate: 0.05, dim: 8, ..LightGcnConfig::default() };
    config.item_stage.train.epochs = 2;
    config.item_stage.train.batch_size = 2;
    config.user_stage.train.epochs = 3;
    config.user_stage.train.batch_size = 8;
    config.user_stage.train.checkpoint_steps = 2;
    config.texts.max_tokens = 4;
    config
}

pub(crate) fn language(dir: &Path) -> LanguageModel {
    if !dir.join("config.json").exists() {
        std::fs::create_dir_all(dir).unwrap();
        tiny_llm::write(dir);
    }
    LanguageModel::load(dir, &LlamaOptions::default(), &Device::Cpu).unwrap()
}
