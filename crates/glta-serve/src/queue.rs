//! The bounded queue of requests in front of the model.

use std::sync::Arc;

use glta_align::{ListOptions, Person};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use crate::metrics::Metrics;
use crate::model::Model;

/// Whom to recommend to, by dense ids of the job's model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Query {
    /// A user of the training data.
    User(u32),
    /// Someone who has these items.
    Items(Vec<u32>),
}

impl Query {
    pub(crate) fn person(&self) -> Person<'_> {
        match self {
            Self::User(user) => Person::User(*user),
            Self::Items(items) => Person::Items(items),
        }
    }
}

/// A request on its way through the model.
pub(crate) struct Job {
    pub(crate) query: Query,
    pub(crate) k: usize,
    /// What may be in the list.
    pub(crate) options: ListOptions,
    /// The model whose ids `query` has; it answers even if a newer one is loaded by then.
    pub(crate) model: Arc<Model>,
    pub(crate) reply: oneshot::Sender<Reply>,
}

/// Item ids and scores, best first, or the model's error.
pub(crate) type Reply = Result<Vec<(u32, f32)>, Failed>;

/// Why the model gave no list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failed {
    /// The options name what the model does not have.
    Options(String),
    Model(String),
}

/// The sending end of the queue.
#[derive(Clone)]
pub(crate) struct Queue {
    sender: mpsc::Sender<Job>,
    metrics: Arc<Metrics>,
}

/// Why a job was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PushError {
    /// As many wait as may.
    Full,
    /// The model's thread has ended.
    Closed,
}

impl Queue {
    /// A queue for `capacity` jobs, and its receiving end, which counts down
    /// [`Metrics::waiting`] for every job it takes out.
    pub(crate) fn new(capacity: usize, metrics: &Arc<Metrics>) -> (Self, mpsc::Receiver<Job>) {
        let (sender, receiver) = mpsc::channel(capacity);
        (Self { sender, metrics: metrics.clone() }, receiver)
    }

    /// Adds a job.
    pub(crate) fn push(&self, job: Job) -> Result<(), PushError> {
        // Before the job can be taken out, so that the gauge never falls below zero.
        self.metrics.waiting.inc();
        self.sender.try_send(job).map_err(|error| {
            self.metrics.waiting.dec();
            match error {
                TrySendError::Full(_) => PushError::Full,
                TrySendError::Closed(_) => PushError::Closed,
            }
        })
    }

    /// Whether the model's thread has ended, which only a defect can make it do.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use glta_align::Recommender;

    use super::*;
    use crate::support;

    #[test]
    fn a_full_queue_and_a_closed_one_refuse() {
        let run = support::run();
        let recommender = Recommender::open(run.path()).unwrap();
        let model = Arc::new(Model::new(recommender, run.path(), 1).unwrap());
        let metrics = Arc::new(Metrics::default());
        let (queue, mut receiver) = Queue::new(1, &metrics);
        let push = || {
            let (reply, _) = oneshot::channel();
            let (query, options) = (Query::User(0), ListOptions::default());
            queue.push(Job { query, k: 1, options, model: model.clone(), reply })
        };
        push().unwrap();
        assert_eq!(push(), Err(PushError::Full));
        assert_eq!(metrics.waiting.get(), 1);
        receiver.try_recv().unwrap();
        push().unwrap();
        assert!(!queue.is_closed());
        drop(receiver);
        assert_eq!(push(), Err(PushError::Closed));
        assert!(queue.is_closed());
    }
}
