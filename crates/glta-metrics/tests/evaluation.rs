//! Compares full ranking with a plain version at several thread counts, and tests invalid inputs.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use glta_data::Interactions;
use glta_metrics::{
    DotScorer, Error, EvaluationConfig, Metric, Ranked, Scorer, ScorerError, evaluate,
    evaluate_rankings, top_k,
};
use ndarray::{Array2, ArrayViewMut2};
use proptest::prelude::*;

/// Returns vectors of small integers, so that inner products are exact and many tie.
fn vectors(rows: usize, dim: usize, seed: u32) -> Array2<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    Array2::from_shape_simple_fn((rows, dim), || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 24) % 7) as f32 - 3.0
    })
}

fn pairs(n_users: usize, n_items: usize, every: u32, seed: u32) -> Interactions {
    let wanted = |u: u32, i: u32| (u * 31 + i * 17 + seed).wrapping_mul(2_654_435_761) >> 16;
    let all = (0..n_users as u32).flat_map(|u| (0..n_items as u32).map(move |i| (u, i)));
    let some = all.filter(|&(u, i)| wanted(u, i) % every == 0);
    Interactions::from_pairs(n_users, n_items, some).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn equals_the_plain_ranking(
        n_users in 1usize..12, n_items in 1usize..200, dim in 1usize..9,
        k in 1usize..30, block_users in 1usize..5, seed in any::<u32>(),
    ) {
        let (users, items) = (vectors(n_users, dim, seed), vectors(n_items, dim, seed ^ 1));
        let scorer = DotScorer { users: users.view(), items: items.view() };
        let truth = pairs(n_users, n_items, 5, seed);
        let masked = pairs(n_users, n_items, 3, seed ^ 2);
        let all_users: Vec<u32> = (0..n_users as u32).rev().collect();
        let ranked = top_k(&scorer, &all_users, &[&masked, &truth], k).unwrap();
        for (&user, row) in all_users.iter().zip(&ranked) {
            let scores = items.dot(&users.row(user as usize));
            let mut plain: Vec<u32> = (0..n_items as u32)
                .filter(|&i| !masked.contains(user, i) && !truth.contains(user, i))
                .collect();
            plain.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]));
            plain.truncate(k);
            prop_assert_eq!(row.iter().map(|r| r.item).collect::<Vec<_>>(), plain);
            for r in row {
                prop_assert_eq!(r.score, scores[r.item as usize]);
            }
        }
        if !truth.is_empty() {
            let config = EvaluationConfig { ks: vec![k], block_users, ..EvaluationConfig::default() };
            let blocked = evaluate(&scorer, &truth, &[&masked], &config).unwrap();
            let whole = evaluate(&scorer, &truth, &[&masked], &EvaluationConfig {
                ks: vec![k], ..EvaluationConfig::default()
            }).unwrap();
            prop_assert_eq!(blocked, whole);

            // The candidates are the items that remain when all others are masked.
            let candidates: Vec<u32> = (0..n_items as u32).filter(|i| i % 3 == 1).collect();
            let others = (0..n_users as u32)
                .flat_map(|u| (0..n_items as u32).filter(|i| i % 3 != 1).map(move |i| (u, i)));
            let others = Interactions::from_pairs(n_users, n_items, others).unwrap();
            let masks = [&masked, &others];
            let by_mask = evaluate(&scorer, &truth, &masks, &config).unwrap();
            let config = EvaluationConfig { candidates: Some(candidates), ..config };
            let among = evaluate(&scorer, &truth, &[&masked], &config).unwrap();
            prop_assert_eq!(among, by_mask);
            let config = EvaluationConfig { candidates: Some(vec![n_items as u32]), ..config };
            prop_assert!(evaluate(&scorer, &truth, &[&masked], &config).is_err());
        }
    }
}

#[test]
fn same_bits_at_any_thread_count() {
    let mut users = vectors(500, 16, 1);
    let mut items = vectors(300, 16, 2);
    users.mapv_inplace(|v| v / 7.0);
    items.mapv_inplace(|v| v / 3.0);
    let scorer = DotScorer { users: users.view(), items: items.view() };
    let (truth, masked) = (pairs(500, 300, 9, 1), pairs(500, 300, 5, 2));
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let config = EvaluationConfig { block_users: 7, ..EvaluationConfig::default() };
        pool.install(|| evaluate(&scorer, &truth, &[&masked], &config).unwrap())
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(4));
    let names: Vec<String> = one.iter().map(|(name, _)| name).collect();
    assert_eq!(names[..4], ["P@5", "P@10", "P@20", "R@5"]);
    let json = serde_json::to_value(&one).unwrap();
    assert_eq!(json["N@10"].as_f64(), one.get(Metric::Ndcg, 10));
}

/// With 50,000 users per block only ten items fit into a block, so there are many item blocks.
#[test]
fn item_blocks_change_nothing() {
    let (users, items) = (vectors(30, 6, 1), vectors(333, 6, 2));
    let scorer = DotScorer { users: users.view(), items: items.view() };
    let (truth, masked) = (pairs(30, 333, 9, 1), pairs(30, 333, 5, 2));
    let run = |block_users| {
        let config = EvaluationConfig { block_users, ..EvaluationConfig::default() };
        evaluate(&scorer, &truth, &[&masked, &truth.filter(|u, i| u == i)], &config).unwrap()
    };
    assert_eq!(run(50_000), run(128));
    assert_eq!(run(usize::MAX), run(128));
}

/// A scorer that allows one call at a time.
struct Exclusive(AtomicUsize);

impl Scorer for Exclusive {
    fn n_items(&self) -> usize {
        50
    }

    fn score(&self, users: &[u32], mut out: ArrayViewMut2<'_, f32>) -> Result<(), ScorerError> {
        if self.0.fetch_add(1, Ordering::SeqCst) > 0 {
            return Err("called from two threads at once".into());
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
        for (&user, mut row) in users.iter().zip(out.rows_mut()) {
            for (item, score) in row.iter_mut().enumerate() {
                *score = ((item as u32 + user) % 50) as f32;
            }
        }
        self.0.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }

    fn parallel(&self) -> bool {
        false
    }
}

#[test]
fn a_serial_scorer_is_called_serially() {
    let truth = pairs(40, 50, 4, 3);
    let config = EvaluationConfig { block_users: 3, ..EvaluationConfig::default() };
    evaluate(&Exclusive(AtomicUsize::new(0)), &truth, &[], &config).unwrap();
}

/// A cut-off above the catalogue size costs nothing and ranks all items.
#[test]
fn a_huge_cut_off_ranks_all_items() {
    let (users, items) = (vectors(3, 4, 1), vectors(5, 4, 2));
    let scorer = DotScorer { users: users.view(), items: items.view() };
    let truth = pairs(3, 5, 2, 1);
    let config = EvaluationConfig { ks: vec![5, usize::MAX], ..EvaluationConfig::default() };
    let report = evaluate(&scorer, &truth, &[], &config).unwrap();
    for metric in [Metric::Recall, Metric::Ndcg, Metric::Mrr, Metric::Map] {
        assert_eq!(report.per_user(metric, usize::MAX), report.per_user(metric, 5));
    }
    assert!(report.get(Metric::Precision, usize::MAX).unwrap() < 1e-15);
    let rankings: Vec<(u32, Vec<u32>)> =
        report.users().iter().zip(0..).map(|(&u, r)| (u, report.ranking(r).to_vec())).collect();
    assert_eq!(evaluate_rankings(&rankings, &truth, &config.ks).unwrap(), report);
    let other = report.with_truth(&truth.filter(|_, item| item > 0)).unwrap();
    assert_eq!(other.get(Metric::Ndcg, 5), other.get(Metric::Ndcg, usize::MAX));
    assert_eq!(top_k(&scorer, &[0], &[], usize::MAX).unwrap()[0].len(), 5);
}

#[test]
fn invalid_inputs_are_rejected() {
    let (mut users, items) = (vectors(3, 4, 1), vectors(5, 4, 2));
    let truth = pairs(3, 5, 2, 1);
    let config = EvaluationConfig::default();
    let fails = |users: &Array2<f32>,
                 truth: &Interactions,
                 masked: &Interactions,
                 config: &EvaluationConfig| {
        let scorer = DotScorer { users: users.view(), items: items.view() };
        evaluate(&scorer, truth, &[masked], config).unwrap_err()
    };
    let none = Interactions::empty(3, 5).unwrap();
    assert!(matches!(fails(&users, &none, &none, &config), Error::NoUsers));
    let narrow = Interactions::empty(3, 4).unwrap();
    assert!(matches!(fails(&users, &truth, &narrow, &config), Error::Shape { got: 4, .. }));
    let more_users = pairs(4, 5, 1, 0);
    let error = fails(&users, &more_users, &none, &config);
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("user 3 has no vector"), "{source}");
    for ks in [vec![], vec![0, 5]] {
        let config = EvaluationConfig { ks, ..EvaluationConfig::default() };
        assert!(matches!(fails(&users, &truth, &none, &config), Error::Config { .. }));
    }
    let config0 = EvaluationConfig { block_users: 0, ..EvaluationConfig::default() };
    assert!(matches!(fails(&users, &truth, &none, &config0), Error::Config { .. }));
    users[[1, 2]] = f32::NAN;
    let nan = fails(&users, &more_users.filter(|u, _| u == 1), &none, &config);
    assert!(matches!(nan, Error::NanScore { user: 1, item: 0 }), "{nan}");
}

#[test]
fn invalid_rankings_are_rejected() {
    let truth = pairs(3, 5, 1, 1);
    for (rankings, problem) in [
        (vec![(0, vec![1, 2, 1])], "holds item 1 twice"),
        (vec![(0, vec![5])], "holds item 5"),
        (vec![(0, vec![]), (0, vec![])], "given twice"),
        (vec![(9, vec![0])], "no user"),
    ] {
        let error = evaluate_rankings(&rankings, &truth, &[5]).unwrap_err();
        assert!(error.to_string().contains(problem), "{error}");
    }
}

/// A function that modifies the lists of a scorer.
type Spoil = fn(&mut Vec<Vec<Ranked>>);

/// A scorer that makes its own lists: item ids in descending order, at most `k`, without excluded
/// ones. `broken` may then modify the lists.
struct Lister {
    items: u32,
    broken: Spoil,
    most_excluded: AtomicUsize,
}

impl Lister {
    fn new(items: u32, broken: Spoil) -> Self {
        Self { items, broken, most_excluded: AtomicUsize::new(0) }
    }
}

impl Scorer for Lister {
    fn n_items(&self) -> usize {
        self.items as usize
    }

    fn score(&self, _: &[u32], _: ArrayViewMut2<'_, f32>) -> Result<(), ScorerError> {
        Err("scores were asked of a scorer that lists items itself".into())
    }

    fn lists_itself(&self) -> bool {
        true
    }

    fn top_k(
        &self,
        users: &[u32],
        k: usize,
        excluded: &[Vec<u32>],
    ) -> Result<Vec<Vec<Ranked>>, ScorerError> {
        assert_eq!(users.len(), excluded.len());
        let all: usize = excluded.iter().map(Vec::len).sum();
        self.most_excluded.fetch_max(all, Ordering::Relaxed);
        let list = |excluded: &Vec<u32>| {
            assert!(excluded.is_sorted_by(|a, b| a < b));
            let items =
                (0..self.items).rev().filter(|i| excluded.binary_search(i).is_err()).take(k);
            items.map(|item| Ranked { item, score: 0.5 }).collect()
        };
        let mut lists = excluded.iter().map(list).collect();
        (self.broken)(&mut lists);
        Ok(lists)
    }
}

/// Calls go to the inner scorer, not to the defaults of the trait.
#[test]
fn a_shared_scorer_forwards_every_call() {
    let lister: Arc<dyn Scorer + Send> = Arc::new(Lister::new(40, |_| ()));
    let truth = pairs(9, 40, 5, 1);
    let config = EvaluationConfig::default();
    let own = evaluate(&Lister::new(40, |_| ()), &truth, &[], &config).unwrap();
    assert_eq!(evaluate(&lister, &truth, &[], &config).unwrap(), own);

    let (users, items) = (vectors(4, 3, 1), vectors(6, 3, 2));
    let dots = DotScorer { users: users.view(), items: items.view() };
    let shared = Arc::new(dots);
    assert!(shared.scores_item_ranges() && shared.parallel() && shared.n_items() == 6);
    let mut out = [Array2::zeros((1, 2)), Array2::zeros((1, 2))];
    shared.score_items(&[3], 4, out[0].view_mut()).unwrap();
    dots.score_items(&[3], 4, out[1].view_mut()).unwrap();
    assert_eq!(out[0], out[1]);
    let mut out = [Array2::zeros((1, 6)), Array2::zeros((1, 6))];
    shared.score(&[3], out[0].view_mut()).unwrap();
    dots.score(&[3], out[1].view_mut()).unwrap();
    assert_eq!(out[0], out[1]);
    assert!(!Arc::new(Exclusive(AtomicUsize::new(0))).parallel());
}

#[test]
fn a_scorer_may_make_its_own_lists() {
    let (n_users, n_items) = (9, 40);
    let lister = Lister::new(n_items as u32, |_| ());
    let truth = pairs(n_users, n_items, 5, 1);
    let masked = pairs(n_users, n_items, 3, 2);
    let users: Vec<u32> = (0..n_users as u32).collect();
    let candidates: Vec<u32> = (0..n_items as u32).filter(|i| i % 3 == 0).collect();
    for among in [None, Some(candidates)] {
        let expected: Vec<(u32, Vec<u32>)> = users
            .iter()
            .map(|&user| {
                let free = |item: &u32| {
                    !masked.contains(user, *item)
                        && among.as_ref().is_none_or(|among| among.contains(item))
                };
                (user, (0..n_items as u32).rev().filter(free).take(7).collect())
            })
            .collect();
        for block_users in [1, 4, 128] {
            let candidates = among.clone();
            let config = EvaluationConfig { ks: vec![3, 7], block_users, candidates };
            let report = evaluate(&lister, &truth, &[&masked], &config).unwrap();
            assert_eq!(report, evaluate_rankings(&expected, &truth, &[3, 7]).unwrap());
        }
        if among.is_none() {
            let ranked = top_k(&lister, &users, &[&masked], 7).unwrap();
            for ((_, expected), list) in expected.iter().zip(ranked) {
                assert_eq!(*expected, list.iter().map(|r| r.item).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn excluded_items_of_a_block_stay_few() {
    let (n_users, n_items) = (40, 300_000);
    let lister = Lister::new(n_items, |_| ());
    let truth = Interactions::from_pairs(n_users, n_items as usize, [(0, 1), (39, 2)]).unwrap();
    let pairs = (0..n_users as u32).map(|u| (u, u + 1));
    let truth_of_all = Interactions::from_pairs(n_users, n_items as usize, pairs).unwrap();
    let config = EvaluationConfig {
        ks: vec![2],
        candidates: Some((0..50).collect()),
        ..EvaluationConfig::default()
    };
    evaluate(&lister, &truth_of_all, &[&truth], &config).unwrap();
    let most = lister.most_excluded.load(Ordering::Relaxed);
    assert!(most > 300_000 && most < 5 << 20, "{most}");
}

#[test]
fn invalid_lists_of_a_scorer_are_rejected() {
    let truth = Interactions::from_pairs(2, 5, [(0, 1), (1, 2)]).unwrap();
    let masked = Interactions::from_pairs(2, 5, [(1, 4)]).unwrap();
    let refused = |broken| {
        let scorer = Lister::new(5, broken);
        let config = EvaluationConfig { ks: vec![2], ..EvaluationConfig::default() };
        let error = evaluate(&scorer, &truth, &[&masked], &config).unwrap_err();
        assert_eq!(
            error.to_string(),
            top_k(&scorer, &[0, 1], &[&masked], 2).unwrap_err().to_string()
        );
        error
    };
    let cases: [(Spoil, &str); 4] = [
        (|lists| lists[1][0].item = lists[1][1].item, "user 1 holds item 2 twice"),
        (|lists| lists[0][1].item = 5, "user 0 holds item 5, but there are 5 items"),
        (|lists| lists[1][0].item = 4, "user 1 holds item 4, which was excluded"),
        (|lists| lists[0].push(Ranked { item: 0, score: 0.0 }), "has 3 items, but 2 were asked"),
    ];
    for (broken, expected) in cases {
        let error = refused(broken);
        assert!(matches!(error, Error::Ranking { .. }));
        assert!(error.to_string().contains(expected), "{error}");
    }
    let error = refused(|lists| lists[0][0].score = f32::NAN);
    assert!(matches!(error, Error::NanScore { user: 0, item: 4 }));
    let error = refused(|lists| drop(lists.pop()));
    assert!(matches!(error, Error::Shape { expected: 2, got: 1, .. }), "{error}");
    let unsupported = DotScorer { users: vectors(2, 1, 1).view(), items: vectors(5, 1, 2).view() }
        .top_k(&[0], 1, &[vec![]]);
    assert!(unsupported.unwrap_err().to_string().contains("no lists"));
}
