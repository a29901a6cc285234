//! Time by tracing span.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};

/// Wall seconds by span path, such as `step/llm forward`.
#[derive(Default)]
struct Sums {
    names: Vec<&'static str>,
    open: Vec<(usize, Instant)>,
    seconds: BTreeMap<String, f64>,
    /// Sizes of the last forward pass, by name.
    sizes: BTreeMap<&'static str, u64>,
}

/// Subscriber that measures the spans of the GLTA crates.
#[derive(Clone, Default)]
pub(crate) struct Clock(Arc<Mutex<Sums>>);

impl Clock {
    /// Returns the seconds by span path, and resets them.
    pub(crate) fn take_seconds(&self) -> BTreeMap<String, f64> {
        std::mem::take(&mut self.0.lock().unwrap().seconds)
    }

    /// Returns the numbers that spans recorded last, by name.
    pub(crate) fn sizes(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap().sizes.clone()
    }
}

impl Visit for Sums {
    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.sizes.insert(field.name(), value);
    }
}

impl Subscriber for Clock {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && metadata.target().starts_with("glta")
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut sums = self.0.lock().unwrap();
        span.record(&mut *sums);
        sums.names.push(span.metadata().name());
        Id::from_u64(sums.names.len() as u64)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &tracing::Event<'_>) {}
    fn enter(&self, span: &Id) {
        self.0.lock().unwrap().open.push((span.into_u64() as usize - 1, Instant::now()));
    }
    fn exit(&self, _: &Id) {
        let mut sums = self.0.lock().unwrap();
        let path: Vec<&str> = sums.open.iter().map(|&(n, _)| sums.names[n]).collect();
        let path = path.join("/");
        if let Some((_, start)) = sums.open.pop() {
            *sums.seconds.entry(path).or_default() += start.elapsed().as_secs_f64();
        }
    }
}
