//! The thread that runs the model on batches of jobs.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use glta_align::{Person, Recommendation};
use rayon::prelude::*;
use tokio::sync::mpsc::Receiver;
use tokio::sync::mpsc::error::TryRecvError;

use crate::metrics::Metrics;
use crate::model::Model;
use crate::queue::{Failed, Job};
use crate::{Error, Result};
use glta_core::with_causes;

/// Name of the model's thread.
const NAME: &str = "glta-model";

/// Time between two checks of an empty queue while a batch waits for more jobs.
const POLL: Duration = Duration::from_micros(100);

/// Starts the model's thread. The thread ends when all senders of `receiver` are dropped.
pub(crate) fn start(
    mut receiver: Receiver<Job>,
    batch: usize,
    wait: Duration,
    metrics: &Arc<Metrics>,
) -> Result<()> {
    let metrics = metrics.clone();
    let work = move || {
        while let Some(first) = receiver.blocking_recv() {
            let wait = if first.model.prompts { wait } else { Duration::ZERO };
            let jobs = collect(first, &mut receiver, batch, wait);
            metrics.waiting.dec_by(jobs.len() as i64);
            answer(jobs, &metrics);
        }
    };
    let spawned = thread::Builder::new().name(NAME.into()).spawn(work);
    spawned.map(drop).map_err(|source| Error::Thread { name: NAME, source })
}

/// Collects `first` and the jobs that arrive within `wait`, at most `batch` jobs.
fn collect(first: Job, receiver: &mut Receiver<Job>, batch: usize, wait: Duration) -> Vec<Job> {
    let mut jobs = vec![first];
    let until = Instant::now() + wait;
    while jobs.len() < batch {
        match receiver.try_recv() {
            Ok(job) => jobs.push(job),
            Err(TryRecvError::Empty) if Instant::now() < until => thread::sleep(POLL),
            Err(_) => break,
        }
    }
    jobs
}

/// Answers the jobs whose clients still wait, grouped by model.
fn answer(mut jobs: Vec<Job>, metrics: &Metrics) {
    jobs.retain(|job| !job.reply.is_closed());
    metrics.batch_size.observe(jobs.len() as f64);
    while let Some(model) = jobs.first().map(|job| job.model.clone()) {
        let (same, others) = jobs.into_iter().partition(|job| Arc::ptr_eq(&job.model, &model));
        answer_with(&model, same);
        jobs = others;
    }
}

/// Answers the jobs of one model. Jobs with the same options are one batch of the language model.
/// If the model needs no prompt, each job is computed and answered separately.
fn answer_with(model: &Model, mut jobs: Vec<Job>) {
    let recommender = &*model.read();
    if !model.prompts {
        jobs.into_par_iter().for_each(|job| {
            let lists = recommender.recommend_with(&[job.query.person()], job.k, &job.options);
            reply(vec![job], lists);
        });
        return;
    }
    while let Some(options) = jobs.first().map(|job| job.options.clone()) {
        let (same, others): (Vec<Job>, _) =
            jobs.into_iter().partition(|job| job.options == options);
        jobs = others;
        let people: Vec<Person<'_>> = same.iter().map(|job| job.query.person()).collect();
        let most = same.iter().map(|job| job.k).max().unwrap_or(0);
        let lists = recommender.recommend_with(&people, most, &options);
        reply(same, lists);
    }
}

/// Sends each job its list, or sends the error to all jobs.
fn reply(jobs: Vec<Job>, lists: glta_align::Result<Vec<Vec<Recommendation<'_>>>>) {
    match lists {
        Ok(lists) => {
            for (job, list) in jobs.into_iter().zip(lists) {
                let best = list.iter().take(job.k).map(|r| (r.item, r.score)).collect();
                // Ignore the error, because the client may have disconnected.
                let _ = job.reply.send(Ok(best));
            }
        }
        Err(error) => {
            let failed = match &error {
                glta_align::Error::UnknownField { .. } => Failed::Options(error.to_string()),
                error => Failed::Model(with_causes(error)),
            };
            for job in jobs {
                let _ = job.reply.send(Err(failed.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use glta_align::{ListOptions, Recommender};

    use super::*;
    use crate::queue::{Query, Queue, Reply};
    use crate::support;
    use tokio::sync::oneshot;

    fn model(version: u64) -> Arc<Model> {
        let run = support::run();
        let recommender = Recommender::open(run.path()).unwrap();
        Arc::new(Model::new(recommender, run.path(), version).unwrap())
    }

    fn job(model: &Arc<Model>, query: Query, k: usize) -> (Job, oneshot::Receiver<Reply>) {
        let (reply, receiver) = oneshot::channel();
        let options = ListOptions::default();
        (Job { query, k, options, model: model.clone(), reply }, receiver)
    }

    /// Returns the result of the recommender itself.
    fn expected(model: &Model, query: &Query, k: usize) -> Vec<(u32, f32)> {
        let recommender = model.read();
        let list = match query {
            Query::User(user) => recommender.recommend(*user, k),
            Query::Items(items) => recommender.recommend_for_items(items, k),
        };
        list.unwrap().iter().map(|r| (r.item, r.score)).collect()
    }

    #[test]
    fn a_mixed_batch_gives_each_job_the_answer_it_would_have_alone() {
        let models = [model(1), model(2)];
        let queries =
            [Query::User(0), Query::Items(vec![0, 1]), Query::User(3), Query::Items(vec![7])];
        let mut jobs = Vec::new();
        let mut replies = Vec::new();
        for (n, query) in queries.iter().enumerate() {
            for model in &models {
                let (job, reply) = job(model, query.clone(), n + 1);
                jobs.push(job);
                replies.push((expected(model, query, n + 1), reply));
            }
        }
        let metrics = Metrics::default();
        answer(jobs, &metrics);
        for (expected, reply) in replies {
            assert_eq!(reply.blocking_recv().unwrap().unwrap(), expected);
        }
        assert!(metrics.text().unwrap().contains("glta_batch_size_sum 8.0"));
    }

    #[test]
    fn an_abandoned_job_is_skipped_and_an_error_reaches_all() {
        let model = model(1);
        let (left, reply) = job(&model, Query::User(0), 1);
        drop(reply);
        let (one, first) = job(&model, Query::User(0), 1);
        let (other, second) = job(&model, Query::User(u32::MAX), 1);
        let metrics = Metrics::default();
        answer(vec![left, one, other], &metrics);
        for reply in [first, second] {
            assert!(
                matches!(reply.blocking_recv().unwrap(), Err(Failed::Model(e)) if e.contains("unknown"))
            );
        }
        assert!(metrics.text().unwrap().contains("glta_batch_size_sum 2.0"));
    }

    #[test]
    fn the_thread_answers_waiting_jobs_and_ends_with_its_senders() {
        let model = model(1);
        let metrics = Arc::new(Metrics::default());
        let (queue, receiver) = Queue::new(8, &metrics);
        let mut replies = Vec::new();
        for user in 0..5 {
            let (job, reply) = job(&model, Query::User(user), 2);
            queue.push(job).unwrap();
            replies.push((expected(&model, &Query::User(user), 2), reply));
        }
        start(receiver, 4, Duration::ZERO, &metrics).unwrap();
        drop(queue);
        for (expected, reply) in replies {
            assert_eq!(reply.blocking_recv().unwrap().unwrap(), expected);
        }
        assert_eq!(metrics.waiting.get(), 0);
    }
}
