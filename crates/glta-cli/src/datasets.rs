//! The data sets that programs read, and how each is treated.

use std::path::Path;

use glta_data::readers::{self, AmazonConfig, GoodreadsConfig};
use glta_data::{Dataset, ShopConfig, TextConfig};
use glta_eval::{Density, ExperimentConfig};

use crate::{Result, fetch};

/// A data set with what its kind changes in an experiment.
#[derive(Debug)]
pub struct DataSource {
    /// Users, items, interactions.
    pub dataset: Dataset,
    /// Which variant of a preset fits it.
    pub density: Density,
    /// Changes the preset.
    pub adapt: fn(&mut ExperimentConfig),
}

/// MovieLens from a folder or zip archive; `data/ml-100k.zip`, which is downloaded, where none
/// is named.
///
/// # Errors
/// Files that are not there or cannot be read.
pub fn movielens(data: Option<&Path>) -> Result<DataSource> {
    let dataset = match data {
        Some(named) => readers::movielens(named)?,
        None => {
            let path = Path::new("data/ml-100k.zip");
            fetch::data(path, "https://files.grouplens.org/datasets/movielens/ml-100k.zip")?;
            readers::movielens(path)?
        }
    };
    Ok(DataSource { dataset, density: Density::Dense, adapt: |_| () })
}

/// One category of Amazon reviews.
///
/// # Errors
/// No folder, or files that cannot be read.
pub fn amazon(data: Option<&Path>, category: Option<&str>, k_core: usize) -> Result<DataSource> {
    let data = data.ok_or(
        "--data DIR: the folder with a category's reviews and metadata, such as \
         Gift_Cards_5.json.gz and meta_Gift_Cards.json.gz from \
         https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/",
    )?;
    let config = AmazonConfig { category: category.map(str::to_owned), ..AmazonConfig::default() };
    let dataset = readers::amazon(data, &config)?.k_core(k_core, k_core);
    Ok(DataSource { dataset, density: Density::Sparse, adapt: described })
}

/// The UCSD Book Graph.
///
/// # Errors
/// No folder, or files that cannot be read.
pub fn goodreads(
    data: Option<&Path>,
    subset: Option<&str>,
    genre: Option<&str>,
    k_core: usize,
) -> Result<DataSource> {
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
    let dataset = readers::goodreads(data, &config)?.k_core(k_core, k_core);
    Ok(DataSource { dataset, density: Density::Sparse, adapt: described })
}

/// The generated shop, for the small language model of this repository.
///
/// # Errors
/// Numbers that no shop can have.
pub fn shop(config: &ShopConfig) -> Result<DataSource> {
    let dataset = Dataset::shop(config)?;
    Ok(DataSource { dataset, density: Density::Sparse, adapt: small_model })
}

/// Titles and descriptions as texts.
fn described(config: &mut ExperimentConfig) {
    config.protocol.texts = TextConfig {
        fields: ["title", "description"].map(String::from).to_vec(),
        ..TextConfig::default()
    };
}

fn small_model(config: &mut ExperimentConfig) {
    described(config);
    // All four layers of the small model.
    config.glta.llm.layers = None;
    // On validation data better than 1 with its 128 dimensions.
    config.glta.item_text.whiten.strength = 0.5;
    config.glta.item_stage.train.epochs = 2;
    config.glta.user_stage.train.epochs = 2;
}
