//! The data sets that examples read, and how each is treated.

use std::path::{Path, PathBuf};

use glta::align::{Config, Preset};
use glta::data::readers::{self, AmazonConfig, GoodreadsConfig};
use glta::data::{Dataset, ShopConfig, SplitConfig, TextConfig};
use glta::graph::LightGcnConfig;

use super::pipeline::Task;
use super::{Result, fetch};

/// MovieLens from a folder or zip archive, `data/ml-100k.zip` where none is named.
#[allow(dead_code, reason = "not every example reads it")]
pub fn movielens(data: Option<&Path>) -> Result<Task> {
    let data = data.map_or_else(|| PathBuf::from("data/ml-100k.zip"), Path::to_owned);
    let name = if data.to_string_lossy().contains("1m") { "ml-1m" } else { "ml-100k" };
    let url = format!("https://files.grouplens.org/datasets/movielens/{name}.zip");
    fetch::data(&data, &url)?;
    Ok(Task {
        dataset: readers::movielens(&data)?,
        split: SplitConfig::default(),
        texts: TextConfig::default(),
        ease_l2: vec![100.0, 200.0, 400.0, 800.0, 1600.0],
        lightgcn_l2: vec![1e-4, 3e-4, 1e-3, 3e-3],
        contrastive_epochs: None,
    })
}

/// One category of Amazon reviews.
#[allow(dead_code, reason = "not every example reads it")]
pub fn amazon(data: Option<&Path>, category: Option<&str>, k_core: usize) -> Result<Task> {
    let data = data.ok_or(
        "--data DIR: the folder with a category's reviews and metadata, such as \
         Gift_Cards_5.json.gz and meta_Gift_Cards.json.gz from \
         https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/",
    )?;
    let config = AmazonConfig { category: category.map(str::to_owned), ..AmazonConfig::default() };
    Ok(sparse(readers::amazon(data, &config)?.k_core(k_core, k_core)))
}

/// The UCSD Book Graph.
#[allow(dead_code, reason = "not every example reads it")]
pub fn goodreads(
    data: Option<&Path>,
    subset: Option<&str>,
    genre: Option<&str>,
    k_core: usize,
) -> Result<Task> {
    let data = data.ok_or(
        "--data DIR: the folder with goodreads_books*.json.gz and \
         goodreads_interactions*.json.gz from \
         https://cseweb.ucsd.edu/~jmcauley/datasets/goodreads.html",
    )?;
    let config = GoodreadsConfig {
        subset: subset.map(str::to_owned),
        genre: genre.map(str::to_owned),
        ..GoodreadsConfig::default()
    };
    Ok(sparse(readers::goodreads(data, &config)?.k_core(k_core, k_core)))
}

/// The generated shop.
#[allow(dead_code, reason = "not every example reads it")]
pub fn shop(config: &ShopConfig) -> Result<Task> {
    Ok(sparse(Dataset::shop(config)?))
}

/// For data with few interactions a user and an item: stronger L2 for LightGCN,
/// weaker for EASE; titles and descriptions as texts.
fn sparse(dataset: Dataset) -> Task {
    Task {
        dataset,
        split: SplitConfig::default(),
        texts: TextConfig {
            fields: ["title", "description"].map(String::from).to_vec(),
            ..TextConfig::default()
        },
        ease_l2: vec![10.0, 30.0, 100.0, 200.0, 400.0],
        lightgcn_l2: vec![1e-4, 1e-3, 1e-2, 1e-1],
        contrastive_epochs: None,
    }
}

/// What MovieLens changes in a preset.
#[allow(dead_code, reason = "not every example reads it")]
pub fn dense_preset(preset: Preset, config: &mut Config) {
    // Four layers keep a run short; the whole model still writes texts.
    adapt(preset, config, 4);
    config.linear.l2 = vec![100.0, 300.0, 1000.0];
}

/// What sparse data changes in a preset.
#[allow(dead_code, reason = "not every example reads it")]
pub fn sparse_preset(preset: Preset, config: &mut Config) {
    adapt(preset, config, 6);
    if preset == Preset::Default {
        // The linear model's popularity has one number where a free bias has one an item.
        config.model.item_bias = false;
        // A user has a handful of items: what is learned from them is soon too much.
        config.user_stage.train.learning_rate = 1e-4;
        config.user_stage.train.epochs = 4;
        config.user_stage.train.patience = 1;
    }
}

/// What the generated shop changes in a preset.
#[allow(dead_code, reason = "not every example reads it")]
pub fn shop_preset(preset: Preset, config: &mut Config) {
    sparse_preset(preset, config);
    // All four of the small model's.
    config.llm.layers = None;
    // On validation data better than 1 with its 128 dimensions.
    config.item_text.whiten.strength = 0.5;
    config.item_stage.train.epochs = 2;
    config.user_stage.train.epochs = 2;
}

fn adapt(preset: Preset, config: &mut Config, layers: usize) {
    config.llm.layers = Some(layers);
    // Full batches are few on a small data set; a higher rate makes up for it.
    config.graph = LightGcnConfig {
        learning_rate: 0.02,
        batch_size: 8192,
        epochs: 250,
        patience: 8,
        ..LightGcnConfig::default()
    };
    if preset == Preset::Default {
        // Item tokens and texts in the user prompt add nothing here that the user
        // token does not hold, and cost most of the time: see docs/results.md.
        config.model.history = 0;
        config.texts.profile = false;
        config.texts.prediction = false;
    }
}
