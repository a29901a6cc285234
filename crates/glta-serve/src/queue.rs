//! The bounded queue of requests in front of the model.

use std::sync::Arc;

use glta_align::{ListOptions, Person};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use crate::metrics::Metrics;
use crate::model::Model;

/// The user of a query, by dense ids of the job's model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Query {
    /// A user of the training data.
    User(u32),
    /// The items of a user, who need not be known.
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

/// A request for the model.
pub(crate) struct Job {
    pub(crate) query: Query,
    pub(crate) k: usize,
    /// The options of the list.
    pub(crate) options: ListOptions,
    /// The model to which the ids of `query` belong. It answers even if a newer model is loaded.
    pub(crate) model: Arc<Model>,
    pub(crate) reply: oneshot::Sender<Reply>,
}

/// Item ids and scores, best first, or the reason why there is no list.
pub(crate) type Reply = Result<Vec<(u32, f32)>, Failed>;

/// The reason why the model returned no list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failed {
    /// The options need something that the model lacks. Contains the message.
    Options(String),
    Model(String),
}

/// The sending side of the queue.
#[derive(Clone)]
pub(crate) struct Queue {
    sender: mpsc::Sender<Job>,
    metrics: Arc<Metrics>,
}

/// The reason why a job was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PushError {
    /// The maximum number of jobs is already waiting.
    Full,
    /// The model's thread has ended.
    Closed,
}

impl Queue {
    /// Creates a queue for `capacity` jobs and its receiver. The receiver must decrement
    /// [`Metrics::waiting`] for every job that it takes out.
    pub(crate) fn new(capacity: usize, metrics: &Arc<Metrics>) -> (Self, mpsc::Receiver<Job>) {
        let (sender, receiver) = mpsc::channel(capacity);
        (Self { sender, metrics: metrics.clone() }, receiver)
    }

    /// Adds a job, or returns the reason why it is rejected.
    pub(crate) fn push(&self, job: Job) -> Result<(), PushError> {
        // Increment before the job can be taken out, so that the gauge does not become negative.
        self.metrics.waiting.inc();
        self.sender.try_send(job).map_err(|error| {
            self.metrics.waiting.dec();
            match error {
                TrySendError::Full(_) => PushError::Full,
                TrySendError::Closed(_) => PushError::Closed,
            }
        })
    }

    /// Returns whether the model's thread has ended, which only a bug can cause.
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
    fn a_full_or_closed_queue_rejects_jobs() {
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
