//! The thread that writes the journal, with several waiting writes per transaction.

use std::sync::{Arc, RwLock};
use std::thread;

use glta_core::with_causes;
use glta_data::Item;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::store::{Added, Event, Journal, Rows};
use crate::metrics::Metrics;
use crate::people::People;
use crate::{Error, Result};

/// Name of the journal's thread.
const NAME: &str = "glta-journal";
/// Maximum number of writes in one transaction.
const GROUP: usize = 1024;

/// A write to the journal.
#[derive(Debug)]
pub(crate) enum Op {
    Interactions(Vec<Event>),
    Item(Box<Item>),
    /// Deletes the user with this raw id.
    Forget(String),
}

/// The result of a successful write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) stored: usize,
    /// Number of interactions that were already stored.
    pub(crate) repeated: usize,
}

/// The reason why a write failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The id of an interaction belongs to a different interaction. Contains the id.
    Taken(String),
    /// The disk or the file caused an error. Contains the message.
    Failed(String),
    /// The maximum number of writes is already waiting.
    Full,
}

type Reply = std::result::Result<Done, Refused>;

struct Write {
    op: Op,
    reply: oneshot::Sender<Reply>,
}

/// A handle that sends writes to the journal's thread.
#[derive(Clone)]
pub(crate) struct Writer(mpsc::Sender<Write>);

impl Writer {
    /// Starts the thread, which ends when the last clone is dropped. The thread adds what it wrote
    /// to `people`. Without a journal, `make` creates one at the first write.
    pub(crate) fn start(
        journal: Option<Journal>,
        make: impl Fn() -> Result<Journal> + Send + 'static,
        people: Arc<RwLock<People>>,
        metrics: Arc<Metrics>,
        queue: usize,
    ) -> Result<Self> {
        let (sender, receiver) = mpsc::channel(queue);
        let work = move || run(receiver, journal, make, &people, &metrics);
        let spawned = thread::Builder::new().name(NAME.into()).spawn(work);
        spawned.map_err(|source| Error::Thread { name: NAME, source })?;
        Ok(Self(sender))
    }

    /// Sends a write, and returns when it is on disk.
    pub(crate) async fn write(&self, op: Op) -> Reply {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(Write { op, reply }).map_err(|e| match e {
            TrySendError::Full(_) => Refused::Full,
            TrySendError::Closed(_) => Refused::Failed("the journal's thread has ended".into()),
        })?;
        answer.await.unwrap_or_else(|e| Err(Refused::Failed(e.to_string())))
    }

    /// Sends a write like [`write`](Self::write), from a thread that may block.
    pub(crate) fn write_blocking(&self, op: Op) -> Reply {
        let (reply, answer) = oneshot::channel();
        let ended = |_| Refused::Failed("the journal's thread has ended".into());
        self.0.blocking_send(Write { op, reply }).map_err(ended)?;
        answer.blocking_recv().unwrap_or_else(|e| Err(Refused::Failed(e.to_string())))
    }
}

fn run(
    mut receiver: mpsc::Receiver<Write>,
    mut journal: Option<Journal>,
    make: impl Fn() -> Result<Journal>,
    people: &RwLock<People>,
    metrics: &Metrics,
) {
    while let Some(first) = receiver.blocking_recv() {
        let mut group = vec![first];
        while let (true, Ok(write)) = (group.len() < GROUP, receiver.try_recv()) {
            group.push(write);
        }
        if journal.is_none() {
            match make() {
                Ok(made) => journal = Some(made),
                Err(error) => {
                    refuse(group, &error);
                    continue;
                }
            }
        }
        let Some(open) = &mut journal else { continue };
        metrics.write_group.observe(group.len() as f64);
        match open.commit(|rows| group.iter().map(|write| write_one(rows, &write.op)).collect()) {
            Ok(done) => {
                let done: Vec<Reply> = done;
                acknowledge(group, done, people, metrics);
            }
            Err(error) => refuse(group, &error),
        }
    }
}

fn refuse(group: Vec<Write>, error: &Error) {
    let message = with_causes(error);
    tracing::warn!("{} writes failed: {message}", group.len());
    for write in group {
        // Ignore the error, because the client may have disconnected.
        let _ = write.reply.send(Err(Refused::Failed(message.clone())));
    }
}

/// Runs one write in a transaction. If the id of an interaction belongs to a different one, all
/// interactions of the write are rolled back.
fn write_one(rows: &mut Rows<'_>, op: &Op) -> rusqlite::Result<Reply> {
    let mut done = Done::default();
    match op {
        Op::Item(item) => rows.put(item)?,
        Op::Forget(user) => rows.forget(user)?,
        Op::Interactions(events) => {
            let mut taken = None;
            rows.whole(|rows| {
                for event in events {
                    match rows.add(event)? {
                        Added::New => done.stored += 1,
                        Added::Known => done.repeated += 1,
                        Added::Taken => {
                            taken = event.id.clone();
                            return Ok(false);
                        }
                    }
                }
                Ok(true)
            })?;
            if let Some(id) = taken {
                return Ok(Err(Refused::Taken(id)));
            }
        }
    }
    Ok(Ok(done))
}

/// Applies the writes that are on disk to the data in memory, and answers the clients.
fn acknowledge(group: Vec<Write>, done: Vec<Reply>, people: &RwLock<People>, metrics: &Metrics) {
    {
        let mut people = people.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (write, done) in group.iter().zip(&done) {
            match (&write.op, done) {
                (Op::Interactions(events), Ok(done)) => {
                    metrics.interactions.inc_by(done.stored as u64);
                    events.iter().for_each(|event| people.add(&event.user, &event.item));
                }
                (Op::Forget(user), Ok(_)) => people.forget(user),
                _ => {}
            }
        }
    }
    for (write, done) in group.into_iter().zip(done) {
        let _ = write.reply.send(done);
    }
}
