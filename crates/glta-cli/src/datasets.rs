//! The data sets of the experiments, and the settings that each of them changes.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use glta_data::readers::{self, AmazonConfig, GoodreadsConfig, MovieLensConfig};
use glta_data::{Dataset, ShopConfig, TextConfig};
use glta_eval::{Density, ExperimentConfig};

use crate::{Result, fetch};

/// A data set, with a function that adapts the configuration of an experiment to it.
#[derive(Debug)]
pub struct DataSource {
    /// Data set with users, items and interactions.
    pub dataset: Dataset,
    /// Density of the data set, which selects the variant of a preset.
    pub density: Density,
    /// Function that changes a preset for the data set.
    pub adapt: fn(&mut ExperimentConfig),
}

/// An archive of MovieLens from GroupLens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub enum Variant {
    /// 100,000 ratings.
    #[value(name = "100k")]
    M100k,
    /// 1 million ratings.
    #[value(name = "1m")]
    M1,
    /// 10 million ratings, in half stars.
    #[value(name = "10m")]
    M10,
    /// 20 million ratings.
    #[value(name = "20m")]
    M20,
    /// 25 million ratings.
    #[value(name = "25m")]
    M25,
    /// 32 million ratings.
    #[value(name = "32m")]
    M32,
    /// Newest small set, which GroupLens updates.
    #[value(name = "latest-small")]
    LatestSmall,
    /// Newest set, which GroupLens updates.
    #[value(name = "latest")]
    Latest,
}

/// Flags for MovieLens.
#[derive(Debug, Clone, Default, Args)]
pub struct MovielensFlags {
    /// MovieLens: archive to read from data/ml-VARIANT.zip if --data is not given; it is downloaded
    /// if it does not exist; default 100k.
    #[arg(long, value_enum, conflicts_with = "data", help_heading = "Data")]
    pub variant: Option<Variant>,
    /// MovieLens: name of the file of ratings, if the folder has those of several generations:
    /// u.data, ratings.dat, pairs.dat or ratings.csv.
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub ratings: Option<String>,
}

/// Reads MovieLens from a folder or zip archive. Without a path, reads the archive of a variant,
/// which is downloaded if it does not exist.
///
/// # Errors
/// Returns an error if a file does not exist or cannot be read.
pub fn movielens(data: Option<&Path>, flags: &MovielensFlags) -> Result<DataSource> {
    let config = MovieLensConfig { ratings: flags.ratings.clone() };
    let dataset = match data {
        Some(named) => {
            found(named)?;
            readers::movielens_with(named, &config)?
        }
        None => {
            let variant = flags.variant.unwrap_or(Variant::M100k).to_possible_value();
            let name = variant.map_or(String::new(), |value| format!("ml-{}", value.get_name()));
            let path = PathBuf::from(format!("data/{name}.zip"));
            let url = format!("https://files.grouplens.org/datasets/movielens/{name}.zip");
            fetch::data(&path, &url)?;
            readers::movielens_with(path, &config)?
        }
    };
    Ok(DataSource { dataset, density: Density::Dense, adapt: |_| () })
}

/// Returns an error if a path does not exist.
fn found(path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    Err(format!("--data {}: no such folder or file", path.display()).into())
}

/// Flags for Amazon reviews.
#[derive(Debug, Clone, Default, Args)]
pub struct AmazonFlags {
    /// Amazon: category to read, if the folder has several.
    #[arg(long, help_heading = "Data")]
    pub category: Option<String>,
    /// Amazon: name of the file of reviews, if the category has several (all reviews and a 5-core);
    /// by default the file whose name matches the metadata.
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub reviews: Option<String>,
    /// Amazon: read no metadata; items then have no texts.
    #[arg(long, help_heading = "Data")]
    pub no_metadata: bool,
}

/// Reads one category of Amazon reviews.
///
/// # Errors
/// Returns an error if there is no folder, a file cannot be read, or no interaction remains after
/// `k_core`.
pub fn amazon(data: Option<&Path>, flags: &AmazonFlags, k_core: usize) -> Result<DataSource> {
    let data = data.ok_or(
        "--data DIR: the folder with a category's reviews and metadata, such as \
         Gift_Cards_5.json.gz and meta_Gift_Cards.json.gz from \
         https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/",
    )?;
    found(data)?;
    let config = AmazonConfig {
        category: flags.category.clone(),
        reviews: flags.reviews.clone(),
        metadata: !flags.no_metadata,
    };
    let dataset = core(readers::amazon(data, &config)?, k_core)?;
    Ok(DataSource { dataset, density: Density::Sparse, adapt: described })
}

/// Flags for Goodreads.
#[derive(Debug, Clone, Default, Args)]
pub struct GoodreadsFlags {
    /// Goodreads: genre of the files to read, such as poetry, if the folder has several.
    #[arg(long, help_heading = "Data")]
    pub subset: Option<String>,
    /// Goodreads: read only books of this genre or shelf, such as history.
    #[arg(long, help_heading = "Data")]
    pub genre: Option<String>,
    /// Goodreads: keep interactions with books that were only put on a shelf (is_read false), which
    /// are otherwise omitted; they are about half of the published interactions.
    #[arg(long, help_heading = "Data")]
    pub keep_unread: bool,
}

/// Reads the UCSD Book Graph (Goodreads).
///
/// # Errors
/// Returns an error if there is no folder, a file cannot be read, or no interaction remains after
/// `k_core`.
pub fn goodreads(data: Option<&Path>, flags: &GoodreadsFlags, k_core: usize) -> Result<DataSource> {
    let data = data.ok_or(
        "--data DIR: the folder with goodreads_books*.json.gz and \
         goodreads_interactions*.json.gz (or the .csv with book_id_map.csv) from \
         https://cseweb.ucsd.edu/~jmcauley/datasets/goodreads.html",
    )?;
    found(data)?;
    let config = GoodreadsConfig {
        subset: flags.subset.clone(),
        genre: flags.genre.clone(),
        only_read: !flags.keep_unread,
        ..GoodreadsConfig::default()
    };
    let dataset = core(readers::goodreads(data, &config)?, k_core)?;
    Ok(DataSource { dataset, density: Density::Sparse, adapt: described })
}

/// Returns the `k`-core of a data set, in which every user and item has at least `k` interactions.
/// Returns an error if it is empty.
fn core(dataset: Dataset, k: usize) -> Result<Dataset> {
    let before = dataset.stats();
    let core = dataset.k_core(k, k);
    if core.interactions().is_empty() {
        let (users, items, interactions) = (before.users, before.items, before.interactions);
        return Err(format!(
            "--k-core {k} removes all of {users} users, {items} items and {interactions} \
             interactions; choose a smaller number"
        )
        .into());
    }
    Ok(core)
}

/// Generates the shop, with settings for the small language model of this repository.
///
/// # Errors
/// Returns an error if a setting of `config` is invalid.
pub fn shop(config: &ShopConfig) -> Result<DataSource> {
    let dataset = Dataset::shop(config)?;
    Ok(DataSource { dataset, density: Density::Sparse, adapt: small_model })
}

/// Sets titles and descriptions as the texts of items.
fn described(config: &mut ExperimentConfig) {
    config.protocol.texts = TextConfig {
        fields: ["title", "description"].map(String::from).to_vec(),
        ..TextConfig::default()
    };
}

fn small_model(config: &mut ExperimentConfig) {
    described(config);
    // The small model has only four layers, and all of them are used.
    config.glta.llm.layers = None;
    // With the 128 dimensions of this model, 0.5 is better than 1 on validation data.
    config.glta.item_text.whiten.strength = 0.5;
    config.glta.item_stage.train.epochs = 2;
    config.glta.user_stage.train.epochs = 2;
}
