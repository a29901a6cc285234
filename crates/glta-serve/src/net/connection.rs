use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tokio::task::AbortHandle;

use super::cut_off::CutOff;

/// What is known of an open connection while it is served.
pub(crate) struct Connection {
    pub(crate) peer: SocketAddr,
    started: Instant,
    /// Milliseconds from `started` to the last answer.
    answered: AtomicU64,
    /// A whole request is being answered.
    works: AtomicBool,
    /// Something of a request has come in.
    began: AtomicBool,
    /// Something of an answer is not read yet.
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

    /// Since when it waits for a whole request.
    pub(crate) fn waits_since(&self) -> Instant {
        self.started + std::time::Duration::from_millis(self.answered.load(Ordering::Relaxed))
    }

    /// A whole request has come in.
    pub(crate) fn works(&self) {
        self.works.store(true, Ordering::Relaxed);
    }

    /// A request is answered.
    pub(crate) fn answered(&self) {
        let now = self.started.elapsed().as_millis() as u64;
        self.answered.store(now, Ordering::Relaxed);
        self.works.store(false, Ordering::Relaxed);
        self.began.store(false, Ordering::Relaxed);
    }

    pub(crate) fn is_working(&self) -> bool {
        self.works.load(Ordering::Relaxed)
    }

    /// Something was read from it.
    pub(crate) fn reads(&self) {
        self.began.store(true, Ordering::Relaxed);
    }

    /// Whether part of a request is there.
    pub(crate) fn has_begun(&self) -> bool {
        self.began.load(Ordering::Relaxed)
    }

    /// Whether part of an answer waits to be read.
    pub(crate) fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    pub(crate) fn set_unread(&self, unread: bool) {
        self.unread.store(unread, Ordering::Relaxed);
    }

    /// The task that serves it.
    pub(crate) fn set_task(&self, task: AbortHandle) {
        // There is one.
        let _ = self.task.set(task);
    }

    /// Notes that the client is, or is to be, cut off.
    pub(crate) fn cut_off(&self, reason: &'static str) {
        self.cut_off.note(reason, self.peer);
    }

    /// Whether its end has begun.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Closes it at once.
    pub(crate) fn close(&self, reason: &'static str) {
        self.cut_off(reason);
        self.closing.store(true, Ordering::Relaxed);
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}
