//! Several ranks train the same model as one rank.

#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;

use glta_comm::{Communicator, in_process};
use glta_data::{Interactions, Split};
use glta_graph::{EpochReport, Error, LightGcn, LightGcnConfig, Trained};

/// Creates two groups of users with their own items, and some noise.
fn split() -> Split {
    let pairs = (0..60u32).flat_map(|user| {
        (0..40u32).filter_map(move |item| {
            let near = user % 2 == item % 2;
            let luck =
                user.wrapping_mul(2_654_435_761).wrapping_add(item.wrapping_mul(40_503)) >> 7;
            (luck % 10 < if near { 5 } else { 1 }).then_some((user, item))
        })
    });
    let all = Interactions::from_pairs(60, 40, pairs).unwrap();
    Split::with_validation(&all, Interactions::empty(60, 40).unwrap(), 0.2, 7).unwrap()
}

fn config() -> LightGcnConfig {
    LightGcnConfig {
        dim: 40,
        epochs: 12,
        batch_size: 100,
        eval_every: 3,
        learning_rate: 0.02,
        ..LightGcnConfig::default()
    }
}

fn on_ranks(size: usize, config: &LightGcnConfig, stop: usize) -> Vec<Result<Trained, Error>> {
    let threads: Vec<_> = in_process(size)
        .into_iter()
        .map(|comm| {
            let config = config.clone();
            std::thread::spawn(move || {
                let split = split();
                let model = LightGcn::new(config)?;
                let last = comm.rank() + 1 == comm.size();
                model.train_on(
                    &comm,
                    None,
                    &split.train,
                    Some(&split.valid),
                    &mut |epoch: &EpochReport| {
                        // Only the last rank cancels.
                        if last && epoch.epoch == stop {
                            ControlFlow::Break(())
                        } else {
                            ControlFlow::Continue(())
                        }
                    },
                )
            })
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

fn assert_near(a: &Trained, b: &Trained) {
    assert_eq!(a.best_epoch, b.best_epoch);
    assert_eq!(a.history.len(), b.history.len());
    for (a, b) in a.history.iter().zip(&b.history) {
        assert!((a.loss - b.loss).abs() < 1e-5 * a.loss, "{} {}", a.loss, b.loss);
        assert_eq!(a.metrics, b.metrics);
    }
    for (a, b) in [
        (&a.embeddings.users, &b.embeddings.users),
        (&a.embeddings.items, &b.embeddings.items),
        (&a.layer0.users, &b.layer0.users),
    ] {
        assert_eq!(a.dim(), b.dim());
        let size = a.iter().map(|x| x * x).sum::<f32>().sqrt();
        let apart = (a - b).iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!(apart < 1e-4 * size, "{apart} of {size}");
    }
}

#[test]
fn any_number_of_ranks_gives_the_same_result() {
    let one = on_ranks(1, &config(), 0).remove(0).unwrap();
    // 40 columns are three panels: two ranks have 32 and 8 columns; of five ranks, two have none.
    for size in [2, 3, 5] {
        for rank in on_ranks(size, &config(), 0) {
            assert_near(&one, &rank.unwrap());
        }
    }
}

#[test]
fn one_rank_stops_all() {
    let one = match on_ranks(1, &config(), 4).remove(0) {
        Err(Error::Cancelled(trained)) => trained,
        other => panic!("{other:?}"),
    };
    assert_eq!(one.history.len(), 4);
    for rank in on_ranks(2, &config(), 4) {
        match rank {
            Err(Error::Cancelled(trained)) => assert_near(&one, &trained),
            other => panic!("{other:?}"),
        }
    }
}
