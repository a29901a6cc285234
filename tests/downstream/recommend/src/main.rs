//! Trains on interactions and texts in memory, saves, loads and recommends:
//! `recommend CHECKPOINT_DIR OUT_DIR`.
use glta::llm::{Device, LlamaOptions};
use glta::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (llm, out) = args.next().zip(args.next()).ok_or("usage: recommend LLM OUT")?;
    let taste = |n: usize| if n.is_multiple_of(2) { "tea" } else { "coffee" };
    let items: Vec<Item> =
        (0..20).map(|n| Item::titled(n.to_string(), format!("{} no. {n}", taste(n)))).collect();
    let users: Vec<String> = (0..30).map(|n| format!("user {n}")).collect();
    let interactions = users.iter().enumerate().flat_map(|(u, user)| {
        let bought =
            items.iter().enumerate().filter(move |(i, _)| (i + u) % 2 == 0 && (i + 3 * u) % 5 > 0);
        bought.map(move |(_, item)| Interaction::new(user, &item.raw_id))
    });
    let dataset = Dataset::from_interactions("drinks", interactions, items.clone())?;
    let split = Split::new(&dataset, &SplitConfig::default())?;
    let data = RunData::new(&dataset, &split, &TextConfig::default())?;

    let language = LanguageModel::load(llm, &LlamaOptions::default(), &Device::Cpu)?;
    // The whole method.
    let mut config = Config::preset(Preset::Full, Density::Sparse);
    config.llm = LlamaOptions::default();
    config.graph.epochs = 50;
    Run::create(&out, data, config)?.fit(Some(&language))?;

    let recommender = Recommender::open_with(&out, &language)?;
    for best in recommender.recommend(recommender.user("user 0").ok_or("no user 0")?, 3)? {
        println!("{:.2} {}", best.score, best.record.title);
    }
    assert_eq!(recommender.recommend_for_items(&[0, 2], 5)?.len(), 5);
    Ok(())
}
