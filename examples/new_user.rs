//! Recommends to a user who was not in the training data, by the ids of the catalogue.
//!
//! ```text
//! cargo run --release --example new_user
//! ```

#![allow(clippy::print_stdout)]

use glta::align::Backbone;
use glta::data::ShopConfig;
use glta::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let shop = Dataset::shop(&ShopConfig { users: 80, items: 60, ..ShopConfig::default() })?;
    let split = Split::new(&shop, &SplitConfig::default())?;
    let data = RunData::new(&shop, &split, &TextConfig::default())?;
    let config = Config { backbone: Backbone::None, ..Config::default() };
    let folder = tempfile::tempdir()?;
    let (recommender, _) = Run::create(folder.path(), data, config)?.fit(None)?;

    // By the ids of the shop.
    let basket = ["article-3", "article-5"];
    let ids = basket.map(|raw| recommender.item(raw).ok_or(format!("{raw} is not known")));
    let ids = ids.into_iter().collect::<Result<Vec<u32>, _>>()?;
    println!("a user with {}:", basket.join(" and "));
    for best in recommender.recommend_for_items(&ids, 5)? {
        println!("  {:.2} {} ({})", best.score, best.record.title, best.record.raw_id);
    }

    // An unknown item is an error that names it, not a panic.
    if let Err(error) = recommender.recommend_for_items(&[1_000_000], 5) {
        println!("{error}");
    }
    Ok(())
}
