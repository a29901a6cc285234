//! The metrics of `/metrics`, as OpenMetrics text.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Labels of the request counter: path and status of an answered request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    pub(crate) path: &'static str,
    pub(crate) status: u16,
}

/// All metrics, whose names begin with `glta_`.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) requests: Family<RequestLabels, Counter>,
    pub(crate) request_seconds: Histogram,
    pub(crate) batch_size: Histogram,
    pub(crate) waiting: Gauge,
    pub(crate) reloads: Counter<u64, AtomicU64>,
    pub(crate) interactions: Counter<u64, AtomicU64>,
    pub(crate) write_group: Histogram,
    pub(crate) connections: Gauge,
    pub(crate) cut_off: Family<CutOffLabels, Counter>,
}

/// Label of the counter of closed connections: the reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct CutOffLabels {
    pub(crate) reason: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("glta");
        let requests = Family::default();
        let request_seconds = Histogram::new(exponential_buckets(0.0005, 2.0, 15));
        let batch_size = Histogram::new(exponential_buckets(1.0, 2.0, 9));
        let (waiting, reloads) = (Gauge::default(), Counter::default());
        registry.register("requests", "Requests by path and status", requests.clone());
        registry.register("request_seconds", "From arrival to answer", request_seconds.clone());
        registry.register(
            "batch_size",
            "Requests that went through the model together",
            batch_size.clone(),
        );
        registry.register("waiting", "Requests that wait for the model", waiting.clone());
        registry.register("reloads", "Models loaded since the start", reloads.clone());
        let interactions = Counter::default();
        registry.register("interactions", "Interactions stored", interactions.clone());
        let write_group = Histogram::new(exponential_buckets(1.0, 2.0, 11));
        registry.register("write_group", "Writes in one transaction", write_group.clone());
        let connections = Gauge::default();
        registry.register("connections", "Connections that are open", connections.clone());
        let cut_off = Family::default();
        registry.register("cut_off", "Closed connections by reason", cut_off.clone());
        Self {
            registry,
            requests,
            request_seconds,
            batch_size,
            waiting,
            reloads,
            interactions,
            write_group,
            connections,
            cut_off,
        }
    }
}

impl Metrics {
    pub(crate) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_every_metric_with_its_value() {
        let metrics = Metrics::default();
        let labels = RequestLabels { path: "/recommend", status: 200 };
        metrics.requests.get_or_create(&labels).inc_by(3);
        metrics.request_seconds.observe(0.004);
        metrics.batch_size.observe(2.0);
        metrics.waiting.set(5);
        metrics.reloads.inc();
        let text = metrics.text().unwrap();
        for line in [
            r#"glta_requests_total{path="/recommend",status="200"} 3"#,
            "glta_request_seconds_count 1",
            "glta_batch_size_sum 2.0",
            "glta_waiting 5",
            "glta_reloads_total 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
