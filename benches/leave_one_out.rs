//! `Ease::score_without` on real data: N@10 of a user's hidden items with a model that was fitted
//! with them and corrected for the user, with a fit without the user, and with the uncorrected
//! model.
//!
//! ```text
//! cargo bench -p glta-linear --bench leave_one_out -- --amazon FOLDER --users 500
//! ```
//!
//! `--goodreads FOLDER` reads the UCSD Book Graph. Half of a user's training items are hidden.
//! Users are drawn from those with at least four training items. TF-IDF encodes the texts.

#![allow(clippy::print_stdout)]

use glta_core::{Silent, TextEncoder};
use glta_data::readers::{AmazonConfig, GoodreadsConfig, amazon, goodreads};
use glta_data::{Dataset, Interactions, Split, SplitConfig};
use glta_linear::{Ease, EaseConfig, Form, TextVectors, TfIdf, TfIdfConfig, WhitenConfig, whiten};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// N@10 of the hidden items among all items except the context.
fn ndcg(mut scores: Vec<f32>, context: &[u32], hidden: &[u32]) -> f64 {
    context.iter().for_each(|&item| scores[item as usize] = f32::NEG_INFINITY);
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    order.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]).then(a.cmp(&b)));
    let gain = |rank: usize| 1.0 / (rank as f64 + 2.0).log2();
    let found = order[..10].iter().enumerate().filter(|(_, item)| hidden.contains(item));
    let ideal: f64 = (0..hidden.len().min(10)).map(gain).sum();
    found.map(|(rank, _)| gain(rank)).sum::<f64>() / ideal
}

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        arguments.iter().position(|a| a == name).and_then(|i| arguments.get(i + 1)).cloned()
    };
    let dataset: Dataset = if let Some(folder) = value("--amazon") {
        amazon(folder, &AmazonConfig::default())?
    } else if let Some(folder) = value("--goodreads") {
        goodreads(folder, &GoodreadsConfig::default())?
    } else {
        println!("give --amazon FOLDER or --goodreads FOLDER");
        return Ok(());
    };
    let users: usize = value("--users").as_deref().unwrap_or("500").parse()?;
    let split = Split::new(&dataset, &SplitConfig::default())?;
    let texts: Vec<String> = dataset.items().iter().map(|i| i.description.clone()).collect();
    let words = TfIdf::fit(&texts, &TfIdfConfig::default())?.encode(&texts, &mut Silent)?;
    let text = TextVectors::new(whiten(words.view(), &WhitenConfig::default())?)?;
    let form = Form::Local { sources: 64, rank: 0 };
    let config = EaseConfig { l2: 100.0, form, ..EaseConfig::default() };
    let fit = |train: &Interactions| Ease::fit_collective(train, &text, 3.0, &config);
    let (train, ease) = (&split.train, fit(&split.train)?);

    let mut random = ChaCha8Rng::seed_from_u64(2024);
    let mut drawn: Vec<u32> =
        (0..train.n_users() as u32).filter(|&user| train.items(user).len() >= 4).collect();
    drawn.shuffle(&mut random);
    drawn.truncate(users);
    let cases: Vec<(u32, Vec<u32>)> = drawn
        .into_iter()
        .map(|user| {
            let mut items = train.items(user).to_vec();
            items.shuffle(&mut random);
            (user, items)
        })
        .collect();
    let values: Vec<[f64; 3]> = cases
        .par_iter()
        .map(|(user, items)| {
            let (context, hidden) = items.split_at(items.len() / 2);
            let without = fit(&train.filter(|other, _| other != *user))?;
            Ok([
                ndcg(without.score_items(context), context, hidden),
                ndcg(ease.score_without(*user, context)?, context, hidden),
                ndcg(ease.score_items(context), context, hidden),
            ])
        })
        .collect::<Result<_, Error>>()?;
    let mean = |of: usize| values.iter().map(|v| v[of]).sum::<f64>() / values.len() as f64;
    println!(
        "{} users of {}, {} items: N@10 refitted {:.4}, corrected {:.4} ({:+.1} %), uncorrected \
         {:.4}",
        values.len(),
        train.n_users(),
        train.n_items(),
        mean(0),
        mean(1),
        100.0 * (mean(1) / mean(0) - 1.0),
        mean(2)
    );
    Ok(())
}
