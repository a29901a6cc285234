use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::metrics::{CutOffLabels, Metrics};

/// A reporter of closed connections: at once in the metrics, and once per second in the log, which
/// many clients could otherwise fill.
pub(crate) struct CutOff {
    metrics: Arc<Metrics>,
    unsaid: Mutex<HashMap<&'static str, (usize, SocketAddr)>>,
}

impl CutOff {
    pub(crate) fn new(metrics: &Arc<Metrics>) -> Self {
        Self { metrics: metrics.clone(), unsaid: Mutex::default() }
    }

    pub(crate) fn note(&self, reason: &'static str, peer: SocketAddr) {
        self.metrics.cut_off.get_or_create(&CutOffLabels { reason }).inc();
        let mut unsaid = self.unsaid.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = unsaid.entry(reason).or_insert((0, peer));
        *entry = (entry.0 + 1, peer);
    }

    /// Logs the connections that were closed since the last call.
    pub(crate) fn say(&self) {
        let noted =
            std::mem::take(&mut *self.unsaid.lock().unwrap_or_else(PoisonError::into_inner));
        for (reason, (count, peer)) in noted {
            match count {
                1 => tracing::warn!("closed the connection of {peer}: {reason}"),
                _ => {
                    tracing::warn!("closed {count} connections: {reason}; the last one was {peer}")
                }
            }
        }
    }
}
