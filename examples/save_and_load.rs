//! Training saves a recommender in a folder; this example opens it again.
//!
//! ```text
//! cargo run --release --example save_and_load
//! ```

#![allow(clippy::print_stdout)]

use glta::align::{Backbone, Density};
use glta::data::ShopConfig;
use glta::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let shop = Dataset::shop(&ShopConfig { users: 80, items: 60, ..ShopConfig::default() })?;
    let split = Split::new(&shop, &SplitConfig::default())?;
    let data = RunData::new(&shop, &split, &TextConfig::default())?;

    // Without a language model, only the folder is needed.
    let mut config = Config::preset(Preset::Default, Density::Sparse);
    config.backbone = Backbone::None;
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("shop");
    let (trained, _) = Run::create(&dir, data, config)?.fit(None)?;

    for file in std::fs::read_dir(&dir)? {
        let file = file?;
        println!("{:>8} bytes  {}", file.metadata()?.len(), file.file_name().display());
    }
    let opened = Recommender::open(&dir)?;
    assert_eq!(trained.recommend(7, 10)?, opened.recommend(7, 10)?);
    println!("the same ten items for user 7");
    Ok(())
}
