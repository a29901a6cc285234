//! The bounded queue in front of the model, which takes what waits in batches.

use std::sync::Arc;
use std::time::{Duration, Instant};

use glta::align::Recommendation;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use crate::common::Result;
use crate::measure::Measures;
use crate::model::Loaded;

/// Whom to recommend something to, by dense ids of the model it was resolved with.
#[derive(Clone)]
pub(crate) enum Who {
    User(u32),
    Items(Vec<u32>),
}

/// One request under way.
pub(crate) struct Job {
    pub(crate) who: Who,
    pub(crate) k: usize,
    /// The ids are those of this model, which answers even if another has come.
    pub(crate) model: Arc<Loaded>,
    pub(crate) reply: oneshot::Sender<Reply>,
}

/// Item ids and scores, or what the model said.
pub(crate) type Reply = std::result::Result<Vec<(u32, f32)>, String>;

/// The way in.
#[derive(Clone)]
pub(crate) struct Queue(mpsc::Sender<Job>, Arc<Measures>);

impl Queue {
    /// Puts a job in, or says why not.
    pub(crate) fn push(&self, job: Job) -> std::result::Result<(), NoPlace> {
        // Before it can be taken out, so that the number never falls below zero.
        self.1.waiting.inc();
        self.0.try_send(job).map_err(|error| {
            self.1.waiting.dec();
            match error {
                TrySendError::Full(_) => NoPlace::Full,
                TrySendError::Closed(_) => NoPlace::Ended,
            }
        })
    }

    /// Whether the model's thread has ended, which only a defect can make it do.
    pub(crate) fn has_ended(&self) -> bool {
        self.0.is_closed()
    }
}

/// Why a job was not taken.
pub(crate) enum NoPlace {
    Full,
    Ended,
}

/// Starts the thread that owns the model's work.
pub(crate) fn start(
    capacity: usize,
    batch: usize,
    wait: Duration,
    measures: &Arc<Measures>,
) -> Result<Queue> {
    let (sender, mut receiver) = mpsc::channel::<Job>(capacity);
    let shared = measures.clone();
    std::thread::Builder::new().name("model".into()).spawn(move || {
        while let Some(first) = receiver.blocking_recv() {
            let mut jobs = vec![first];
            let until = Instant::now() + wait;
            while jobs.len() < batch {
                match receiver.try_recv() {
                    Ok(job) => jobs.push(job),
                    Err(_) if Instant::now() < until => {
                        std::thread::sleep(Duration::from_micros(100))
                    }
                    Err(_) => break,
                }
            }
            shared.waiting.dec_by(jobs.len() as i64);
            // Whoever has given up needs no answer.
            jobs.retain(|job| !job.reply.is_closed());
            shared.batch.observe(jobs.len() as f64);
            while let Some(model) = jobs.first().map(|job| job.model.clone()) {
                let (same, others): (Vec<Job>, Vec<Job>) =
                    jobs.into_iter().partition(|job| Arc::ptr_eq(&job.model, &model));
                answer(&model, same);
                jobs = others;
            }
        }
    })?;
    Ok(Queue(sender, measures.clone()))
}

/// Answers jobs of one model: the known users together, and the others.
fn answer(model: &Loaded, jobs: Vec<Job>) {
    let (mut users, mut people) = (Vec::new(), Vec::new());
    let (mut of_users, mut of_people) = (Vec::new(), Vec::new());
    for job in jobs {
        match &job.who {
            Who::User(user) => {
                users.push(*user);
                of_users.push(job);
            }
            Who::Items(items) => {
                people.push(items.clone());
                of_people.push(job);
            }
        }
    }
    let most = |jobs: &[Job]| jobs.iter().map(|job| job.k).max().unwrap_or(0);
    let recommender = &model.recommender;
    if !of_users.is_empty() {
        let lists = recommender.recommend_batch(&users, most(&of_users));
        deliver(of_users, lists.map_err(|e| e.to_string()));
    }
    if !of_people.is_empty() {
        let lists = recommender.recommend_for_items_batch(&people, most(&of_people));
        deliver(of_people, lists.map_err(|e| e.to_string()));
    }
}

fn deliver(jobs: Vec<Job>, lists: std::result::Result<Vec<Vec<Recommendation<'_>>>, String>) {
    match lists {
        Ok(lists) => {
            for (job, list) in jobs.into_iter().zip(lists) {
                let best = list.iter().take(job.k).map(|r| (r.item, r.score)).collect();
                // Nobody may be there any more.
                let _ = job.reply.send(Ok(best));
            }
        }
        Err(message) => {
            for job in jobs {
                let _ = job.reply.send(Err(message.clone()));
            }
        }
    }
}
