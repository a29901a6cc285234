//! Queries to the recommender of a shop: lists with options, similar items, and explanations.
//!
//! ```text
//! cargo run --release --example ask_a_shop
//! ```

#![allow(clippy::print_stdout)]

use glta::align::{ItemVectors, ListOptions, Person, Recommendation, Similarity, fit_for_serving};
use glta::linear::TfIdfConfig;
use glta::prelude::*;
use glta::shared::Silent;

fn show(about: &str, list: &[Recommendation<'_>]) {
    println!("{about}:");
    for best in list {
        println!("  {:6.2} {} ({})", best.score, best.record.title, best.record.raw_id);
    }
}

/// Products of three categories, the last of which has no interactions.
fn shop() -> Result<Dataset, glta::data::Error> {
    const CATEGORIES: [(&str, &str); 3] =
        [("Tea", "green tea, loose"), ("Furniture", "round oak table"), ("Sport", "light ball")];
    let products = (0..30).map(|n| {
        let (category, words) = CATEGORIES[n % 3];
        let mut item = Item::titled(format!("p{n}"), format!("{words}, no. {n}"));
        item.genres = vec![category.into()];
        item
    });
    let users: Vec<String> = (0..60).map(|n| format!("customer {n}")).collect();
    let items: Vec<String> = (0..27).map(|n| format!("p{n}")).collect();
    let bought = users.iter().enumerate().flat_map(|(user, name)| {
        // Each user likes two of the categories, and has a part of their products.
        let likes = move |item: &usize| item % 3 != user % 3 && (item * 7 + user) % 5 < 2;
        let items = &items;
        (0..27).filter(likes).map(move |item| Interaction::new(name, &items[item]))
    });
    Dataset::from_interactions("shop", bought.collect::<Vec<_>>(), products.collect())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let shop = shop()?;
    // A tenth of each user's interactions is used to choose the settings, and then fitted as well.
    let parts = SplitConfig { test_ratio: 0.0, valid_ratio: 0.1, ..SplitConfig::default() };
    let data = RunData::new(&shop, &Split::new(&shop, &parts)?, &TextConfig::default())?;
    let texts: Vec<&str> = data.items.iter().map(|item| item.text.as_str()).collect();
    let words = ItemVectors::tf_idf(&texts, &TfIdfConfig::default())?;
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("shop");
    let (recommender, _) = fit_for_serving(&dir, data, Config::default(), &[words], &mut Silent)?;

    // The same options for a known customer, for a list of items, and for a user without items, who
    // gets the most popular ones.
    let customer = recommender.user("customer 7").ok_or("customer 7 is not known")?;
    let basket = [3, 5];
    let people = [Person::User(customer), Person::Items(&basket), Person::Items(&[])];
    let options = ListOptions::default().filter("category", "Tea").exclude([0]);
    let lists = recommender.recommend_with(&people, 3, &options)?;
    for (who, list) in ["customer 7", "a basket", "a user without items"].into_iter().zip(&lists) {
        show(&format!("tea for {who}"), list);
    }
    // Only some items, such as those of a campaign, including the customer's own.
    let campaign = ListOptions::default().among(0..20).allow_known();
    show(
        "customer 7, items of a campaign",
        &recommender.recommend_with(&people[..1], 3, &campaign)?[0],
    );

    // By text, also for a product without interactions, and by common users.
    let (all, new) = (ListOptions::default(), recommender.item("p29").ok_or("no p29")?);
    show(
        "similar to p29, a new product",
        &recommender.similar_items(new, 3, Similarity::Text, &all)?,
    );
    show("bought with p3", &recommender.similar_items(3, 3, Similarity::CoInteractions, &all)?);

    // The contributions of the customer's articles and of the popularity add up to the score.
    let best = lists[0].first().ok_or("the list is empty")?.item;
    let why = recommender.explain(Person::User(customer), best)?;
    let parts: f32 = why.items.iter().map(|&(_, part)| part).sum();
    println!(
        "why {}: {parts:.3} + popularity {:.3}",
        recommender.items()[best as usize].title,
        why.popularity
    );
    for (item, part) in why.items.iter().take(3) {
        println!("  {part:6.3} {}", recommender.items()[*item as usize].title);
    }
    assert!((parts + why.popularity - why.score).abs() < 1e-3);
    Ok(())
}
