//! The cost of one call of `Recommender::recommend_with` without the prompt path: 10,000 items with
//! texts, 20,000 users with 20 items each.
//!
//! Limit: 0.2 ms per call on one thread (CPU time), also with a filter, an exclusion, and the
//! user's own items.
//!
//! ```text
//! cargo bench -p glta-align --bench recommend
//! ```
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::time::Duration;

use cpu_time::ProcessTime;
use glta_align::{Config, ItemVectors, ListOptions, Person, Recommender, RunData, fit_for_serving};
use glta_core::Silent;
use glta_data::{Dataset, Interaction, Item, Split, SplitConfig, TextConfig};
use glta_linear::{Solver, TfIdfConfig};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const LIMIT: Duration = Duration::from_micros(200);
const ITEMS: usize = 10_000;
const PEOPLE: usize = 20_000;
const CALLS: usize = 2_000;

fn shop() -> Dataset {
    const KINDS: [&str; 8] = ["tea", "lamp", "chair", "book", "drum", "bike", "coat", "soap"];
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let ids: Vec<String> = (0..ITEMS).map(|n| format!("p{n}")).collect();
    let people: Vec<String> = (0..PEOPLE).map(|n| format!("c{n}")).collect();
    let items = ids.iter().enumerate().map(|(n, id)| {
        let (kind, word) = (KINDS[n % KINDS.len()], n / KINDS.len() % 100);
        let mut item = Item::titled(id, format!("a {kind} of kind {word}, no. {n}"));
        item.genres = vec![kind.to_owned()];
        item
    });
    let mut bought = Vec::with_capacity(PEOPLE * 20);
    for (n, person) in people.iter().enumerate() {
        for _ in 0..20 {
            let place = (ITEMS / KINDS.len()) as f64 * rng.random::<f64>().powi(2);
            let item = place as usize * KINDS.len() + (n + rng.random_range(0..2)) % KINDS.len();
            bought.push(Interaction::new(person, &ids[item.min(ITEMS - 1)]));
        }
    }
    Dataset::from_interactions("shop", bought, items.collect()).unwrap()
}

fn fitted(folder: &std::path::Path, solver: Solver) -> Recommender {
    let shop = shop();
    let parts = SplitConfig { test_ratio: 0.0, valid_ratio: 0.1, ..SplitConfig::default() };
    let split = Split::new(&shop, &parts).unwrap();
    let data = RunData::new(&shop, &split, &TextConfig::default()).unwrap();
    let texts: Vec<&str> = data.items.iter().map(|item| item.text.as_str()).collect();
    let words = ItemVectors::tf_idf(&texts, &TfIdfConfig::default()).unwrap();
    let mut config = Config::default();
    // One setting, because the choice does not affect the time of a call.
    config.linear.solvers = vec![solver];
    (config.linear.l2, config.linear.text) = (vec![100.0], vec![3.0]);
    let recommender = fit_for_serving(folder, data, config, &[words], &mut Silent);
    recommender.unwrap().0
}

fn main() {
    for solver in [Solver::Local, Solver::Dense] {
        let folder = tempfile::tempdir().unwrap();
        println!("{solver:?} form:");
        measure(&fitted(&folder.path().join("shop"), solver));
    }
}

fn measure(recommender: &Recommender) {
    // One thread, so that wall time is CPU time.
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let plain = ListOptions::default();
    let filtered = plain.clone().filter("genres", "tea").exclude([0, 8, 16]);
    let again = plain.clone().allow_known();
    let basket = [3, 17, 99];
    for (what, options, known) in [
        ("a known person", &plain, true),
        ("a basket", &plain, false),
        ("a known user, with a filter", &filtered, true),
        ("a basket, filtered", &filtered, false),
        ("a known user, own items included", &again, true),
    ] {
        let call = |n: usize| {
            let person =
                if known { Person::User((n * 7 % PEOPLE) as u32) } else { Person::Items(&basket) };
            let lists = recommender.recommend_with(&[person], 10, options).unwrap();
            assert_eq!(lists[0].len(), 10);
        };
        let best = (0..5)
            .map(|_| {
                let start = ProcessTime::now();
                one.install(|| (0..CALLS).for_each(call));
                start.elapsed() / CALLS as u32
            })
            .min()
            .unwrap();
        let verdict = if best <= LIMIT { "within" } else { "ABOVE" };
        println!("{what}: {best:.1?} of CPU a call, {verdict} the limit of {LIMIT:.1?}");
    }
}
