//! The data sets that examples read, and how each is treated.

use std::path::{Path, PathBuf};

use glta::align::Config;
use glta::data::readers::{self, AmazonConfig, GoodreadsConfig};
use glta::data::{Dataset, ShopConfig, SplitConfig, TextConfig};

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

/// What the generated shop changes in a preset.
#[allow(dead_code, reason = "not every example reads it")]
pub fn shop_preset(config: &mut Config) {
    // All four of the small model's.
    config.llm.layers = None;
    // On validation data better than 1 with its 128 dimensions.
    config.item_text.whiten.strength = 0.5;
    config.item_stage.train.epochs = 2;
    config.user_stage.train.epochs = 2;
}
