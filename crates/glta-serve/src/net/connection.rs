use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tokio::task::AbortHandle;

use super::cut_off::CutOff;

/// The state of an open connection.
pub(crate) struct Connection {
    pub(crate) peer: SocketAddr,
    started: Instant,
    /// Time of the last answer, in milliseconds after `started`.
    answered: AtomicU64,
    /// Whether a complete request is being answered.
    works: AtomicBool,
    /// Whether a part of a request has arrived.
    began: AtomicBool,
    /// Whether a part of an answer is unread.
    unread: AtomicBool,
    closing: AtomicBool,
    task: OnceLock<AbortHandle>,
    cut_off: Arc<CutOff>,
}

impl Connection {
    pub(crate) fn new(peer: SocketAddr, cut_off: &Arc<CutOff>) -> Self {
        Self {
            peer,
            started: Instant::now(),
            answered: AtomicU64::new(0),
            works: AtomicBool::new(false),
            began: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            task: OnceLock::new(),
            cut_off: cut_off.clone(),
        }
    }

    /// Returns the time at which the connection began to wait for a complete request.
    pub(crate) fn waits_since(&self) -> Instant {
        self.started + std::time::Duration::from_millis(self.answered.load(Ordering::Relaxed))
    }

    /// Records that a complete request has arrived.
    pub(crate) fn begin_work(&self) {
        self.works.store(true, Ordering::Relaxed);
    }

    /// Records that a request has been answered.
    pub(crate) fn answered(&self) {
        let now = self.started.elapsed().as_millis() as u64;
        self.answered.store(now, Ordering::Relaxed);
        self.works.store(false, Ordering::Relaxed);
        self.began.store(false, Ordering::Relaxed);
    }

    pub(crate) fn is_working(&self) -> bool {
        self.works.load(Ordering::Relaxed)
    }

    /// Records that bytes were read from the client.
    pub(crate) fn reads(&self) {
        self.began.store(true, Ordering::Relaxed);
    }

    /// Returns whether a part of a request has arrived.
    pub(crate) fn has_begun(&self) -> bool {
        self.began.load(Ordering::Relaxed)
    }

    /// Returns whether a part of an answer is unread.
    pub(crate) fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    pub(crate) fn set_unread(&self, unread: bool) {
        self.unread.store(unread, Ordering::Relaxed);
    }

    /// Sets the task that serves the connection.
    pub(crate) fn set_task(&self, task: AbortHandle) {
        // The task is set only once.
        let _ = self.task.set(task);
    }

    /// Records the reason why the client is disconnected.
    pub(crate) fn cut_off(&self, reason: &'static str) {
        self.cut_off.note(reason, self.peer);
    }

    /// Returns whether the connection is being closed.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Closes the connection at once.
    pub(crate) fn close(&self, reason: &'static str) {
        self.cut_off(reason);
        self.closing.store(true, Ordering::Relaxed);
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}
