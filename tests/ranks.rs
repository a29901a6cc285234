//! The whole flow on several ranks, which are threads here, gives the results of one rank up to
//! rounding.

#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use glta::align::FitReport;
use glta::comm::{Communicator, in_process};
use glta::prelude::*;

mod tastes;
mod tiny_llm;

use tastes::{config, data, language};

/// Lists of all users, and the report.
type Ended = (Vec<Vec<u32>>, FitReport);

/// The result of every rank; the run stops after `stop` events of the last rank.
fn fit(
    size: usize,
    dir: &Path,
    llm: &Path,
    config: &Config,
    stop: usize,
) -> Vec<Result<Ended, Error>> {
    let threads: Vec<_> = in_process(size)
        .into_iter()
        .map(|comm| {
            let (dir, llm, config) = (dir.to_owned(), llm.to_owned(), config.clone());
            std::thread::spawn(move || {
                let language = language(&llm);
                let comm: Arc<dyn Communicator> = Arc::new(comm);
                let there = comm.root_says(Run::exists(&dir))?;
                let open = if there { Run::resume_on } else { Run::create_on };
                let run = open(Arc::clone(&comm), dir, data(), config)?;
                let mut steps = 0;
                let last = comm.rank() + 1 == comm.size();
                let (trained, report) = run.fit_with(Some(&language), &mut |event: &Event| {
                    steps += usize::from(matches!(event, Event::Step { .. }));
                    if last && stop > 0 && steps == stop {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                })?;
                comm.barrier()?;
                let users: Vec<u32> = (0..trained.users().len() as u32).collect();
                let lists = trained.recommend_batch(&users, 5)?;
                let items = lists.into_iter().map(|l| l.into_iter().map(|r| r.item).collect());
                Ok((items.collect(), report))
            })
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

fn assert_near(a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= 1e-6 * a.abs(), "{a} {b}");
    }
}

fn assert_same(one: &Ended, other: &Ended) {
    let (a, b) = (&one.1, &other.1);
    for (a, b) in [
        (a.item_stage.as_ref().unwrap(), b.item_stage.as_ref().unwrap()),
        (a.user_stage.as_ref().unwrap(), b.user_stage.as_ref().unwrap()),
    ] {
        assert_near(&a.losses, &b.losses);
        assert_eq!(a.evaluations, b.evaluations);
        assert_eq!(a.best_epoch, b.best_epoch);
    }
    assert_eq!(one.0, other.0);
}

#[test]
fn any_number_of_ranks_gives_the_same_result() {
    let folder = tempfile::tempdir().unwrap();
    let llm = folder.path().join("llm");
    drop(language(&llm));
    for preset in [Preset::Full, Preset::Paper] {
        let mut config = config(preset);
        (config.texts.profile, config.texts.prediction) = (true, true);
        let dir = |size: usize| folder.path().join(format!("{preset:?}-{size}"));
        let one = fit(1, &dir(1), &llm, &config, 0).remove(0).unwrap();
        let texts = |size| std::fs::read(dir(size).join("texts.jsonl")).unwrap();
        // Batches of two prompts in stage 2: the third of three ranks gets none of them.
        for size in [2, 3] {
            for rank in fit(size, &dir(size), &llm, &config, 0) {
                assert_same(&one, &rank.unwrap());
            }
            assert_eq!(texts(1), texts(size));
        }
    }
}

#[test]
fn one_rank_stops_all_and_another_number_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let llm = folder.path().join("llm");
    drop(language(&llm));
    let config = config(Preset::Full);
    let one = fit(1, &folder.path().join("whole"), &llm, &config, 0).remove(0).unwrap();
    for (stop, first, then) in [(3, 2, 3), (9, 3, 1), (14, 2, 2)] {
        let dir = folder.path().join(format!("at-{stop}"));
        for rank in fit(first, &dir, &llm, &config, stop) {
            assert!(matches!(rank, Err(Error::Cancelled)), "{rank:?}");
        }
        assert!(dir.join("state.safetensors").exists());
        for rank in fit(then, &dir, &llm, &config, 0) {
            assert_same(&one, &rank.unwrap());
        }
    }
}
