//! Trains a recommender on interactions and texts in memory.
//!
//! ```text
//! cargo run --release --example train_from_memory
//! ```

#![allow(clippy::print_stdout)]

use glta::data::Interaction;
use glta::llm::Device;
use glta::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Thirty customers who drink tea or coffee.
    let kind = |n: usize| if n.is_multiple_of(2) { "tea" } else { "coffee" };
    let items: Vec<Item> =
        (0..20).map(|n| Item::titled(format!("sku-{n}"), format!("{} no. {n}", kind(n)))).collect();
    let users: Vec<String> = (0..30).map(|n| format!("customer {n}")).collect();
    let bought = users.iter().enumerate().flat_map(|(u, user)| {
        let own =
            items.iter().enumerate().filter(move |(i, _)| (i + u) % 2 == 0 && (i + u) % 5 > 0);
        own.map(move |(_, item)| Interaction::new(user, &item.raw_id))
    });
    let dataset = Dataset::from_interactions("drinks", bought, items.clone())?;
    let split = Split::new(&dataset, &SplitConfig::default())?;
    let data = RunData::new(&dataset, &split, &TextConfig::default())?;

    // The small language model of this repository; any LLaMA checkpoint can be used.
    let llm = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/quickstart/llm");
    let config = Config::default();
    let language = LanguageModel::load(llm, &config.llm, &Device::Cpu)?;

    // The linear model with text vectors of the language model.
    let folder = tempfile::tempdir()?;
    let run = Run::create(folder.path().join("drinks"), data, config)?;
    let (recommender, report) = run.fit(Some(&language))?;
    println!("validation N@10: {:?}", report.validation());
    for best in recommender.recommend(0, 3)? {
        println!("{:.2} {}", best.score, best.record.title);
    }
    Ok(())
}
