use std::ops::ControlFlow;

/// A receiver of the events of long-running work. Every `FnMut(&E) -> ControlFlow<()>` implements
/// the trait, and [`Silent`] ignores all events.
pub trait Progress<E: ?Sized> {
    /// Receives one event. Returning `Break` cancels the work.
    fn report(&mut self, event: &E) -> ControlFlow<()>;
}

impl<E: ?Sized, F: FnMut(&E) -> ControlFlow<()> + ?Sized> Progress<E> for F {
    fn report(&mut self, event: &E) -> ControlFlow<()> {
        self(event)
    }
}

/// A [`Progress`] that ignores all events and never cancels.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl<E: ?Sized> Progress<E> for Silent {
    fn report(&mut self, _: &E) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// The error of work that a [`Progress`] receiver cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

/// Sends an event to a progress receiver.
///
/// # Errors
/// Returns [`Cancelled`] if the receiver returns `Break`.
pub fn report<E: ?Sized, P: Progress<E> + ?Sized>(
    progress: &mut P,
    event: &E,
) -> Result<(), Cancelled> {
    match progress.report(event) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Cancelled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closures_receive_events_and_cancel() {
        let mut seen = Vec::new();
        let mut closure = |event: &str| {
            seen.push(event.to_owned());
            if event == "stop" { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let progress: &mut dyn Progress<str> = &mut closure;
        assert_eq!(report(progress, "go"), Ok(()));
        assert_eq!(report(progress, "stop"), Err(Cancelled));
        assert_eq!(seen, ["go", "stop"]);
        assert_eq!(report(&mut Silent, "stop"), Ok(()));
    }

    #[test]
    fn events_may_borrow() {
        struct Event<'a>(&'a str);
        let mut length = 0;
        let progress: &mut dyn FnMut(&Event<'_>) -> ControlFlow<()> = &mut |event| {
            length += event.0.len();
            ControlFlow::Continue(())
        };
        let text = String::from("local");
        report(progress, &Event(&text)).unwrap();
        assert_eq!(length, 5);
    }
}
