//! Prints events of the libraries as lines on standard error.

use std::fmt::Debug;
use std::io::{self, IsTerminal, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, layer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Default filter: warnings, messages of the readers, and messages of the service about new models.
const DEFAULT: &str = "warn,glta_data=info,glta_serve=info";

/// Prints the events that `RUST_LOG` selects (such as `glta_llm=debug,warn`). The default is
/// warnings, messages of the readers, and messages of the service about new models. Every program
/// calls this function first. Later calls change nothing.
pub fn init() {
    let named = std::env::var("RUST_LOG").ok();
    let parsed = named.as_deref().map(str::parse::<Targets>);
    let (targets, error) = match parsed {
        Some(Ok(targets)) => (targets, None),
        Some(Err(error)) => (default_targets(), Some(error)),
        None => (default_targets(), None),
    };
    let lines = layer().with_writer(|| Lines).event_format(OneLine);
    let registry = tracing_subscriber::registry().with(targets).with(lines);
    if registry.try_init().is_ok()
        && let Some(error) = error
    {
        tracing::warn!("RUST_LOG is ignored: {error}");
    }
}

fn default_targets() -> Targets {
    DEFAULT.parse().unwrap_or_else(|_| Targets::new().with_default(Level::WARN))
}

/// A writer to standard error. On a terminal, it first clears the line of a progress bar, which is
/// drawn again below.
struct Lines;

impl Write for Lines {
    /// Writes one complete event: the subscriber calls this method once per event.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        const CLEAR_LINE: &[u8] = b"\r\x1b[2K";
        let mut stderr = io::stderr().lock();
        // Errors are ignored. The subscriber would try to print them, and panic if standard error
        // is closed.
        if stderr.is_terminal() {
            let _ = stderr.write_all(CLEAR_LINE);
        }
        let _ = stderr.write_all(event);
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = io::stderr().flush();
        Ok(())
    }
}

/// The format `warning: message, field=value` of events. Below the level INFO it includes the
/// module.
struct OneLine;

impl<S, N> FormatEvent<S, N> for OneLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let metadata = event.metadata();
        let mut text = Text::default();
        event.record(&mut text);
        match *metadata.level() {
            Level::ERROR => write!(writer, "error: ")?,
            Level::WARN => write!(writer, "warning: ")?,
            Level::INFO => {}
            Level::DEBUG => write!(writer, "debug: {}: ", metadata.target())?,
            Level::TRACE => write!(writer, "trace: {}: ", metadata.target())?,
        }
        writeln!(writer, "{}{}", text.message, text.fields)
    }
}

/// The message of an event and its other fields, as text.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.fields += &format!(", {}={value:?}", field.name());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn warnings_are_printed_and_other_events_are_left_out() {
        let memory = Memory::default();
        let writer = memory.clone();
        let lines = layer().with_writer(move || writer.clone()).event_format(OneLine);
        let subscriber = tracing_subscriber::registry().with(default_targets()).with(lines);
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(target: "glta_data", lines = 3, "no such column");
            tracing::info!(target: "glta_graph", "trained");
            tracing::info!(target: "glta_data::readers", "read");
            tracing::info!(target: "glta_serve::reload", "loaded model {}", 2);
            tracing::error!(target: "glta_llm", "broken");
        });
        let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text, "warning: no such column, lines=3\nread\nloaded model 2\nerror: broken\n");
    }
}
