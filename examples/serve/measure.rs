//! What `/metrics` tells, in Prometheus' text form.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Of one kind of request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Labels {
    pub(crate) path: &'static str,
    pub(crate) status: u16,
}

pub(crate) struct Measures {
    registry: Registry,
    pub(crate) requests: Family<Labels, Counter>,
    pub(crate) seconds: Histogram,
    pub(crate) batch: Histogram,
    pub(crate) waiting: Gauge,
    pub(crate) reloads: Counter<u64, AtomicU64>,
}

impl Default for Measures {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("glta");
        let requests = Family::default();
        let seconds = Histogram::new(exponential_buckets(0.0005, 2.0, 15));
        let batch = Histogram::new(exponential_buckets(1.0, 2.0, 9));
        let (waiting, reloads) = (Gauge::default(), Counter::default());
        registry.register("requests", "Requests by path and status", requests.clone());
        registry.register("request_seconds", "From arrival to answer", seconds.clone());
        registry.register(
            "batch_size",
            "Requests that went through the model together",
            batch.clone(),
        );
        registry.register("waiting", "Requests that wait for the model", waiting.clone());
        registry.register("reloads", "Models loaded since the start", reloads.clone());
        Self { registry, requests, seconds, batch, waiting, reloads }
    }
}

impl Measures {
    pub(crate) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
