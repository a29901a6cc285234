use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tower::ServiceExt;

use super::connection::Connection;
use super::cut_off::CutOff;
use super::limited::Limited;
use crate::metrics::Metrics;

/// Maximum length of the head of a request, in bytes.
const LONGEST_HEAD: usize = 64 * 1024;
/// Time between two checks of the open connections.
const LOOK: Duration = Duration::from_millis(5);
/// Extra time at a shutdown for bytes that have arrived but were not read yet.
const LAST: Duration = Duration::from_millis(500);

/// Limits of connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Maximum number of open connections.
    pub(crate) connections: usize,
    /// Time within which the head of a request must be complete.
    pub(crate) head: Duration,
    /// Time within which the client must read more of an answer.
    pub(crate) unread: Duration,
}

type All = Arc<Mutex<HashMap<u64, Arc<Connection>>>>;

/// The set of open connections.
pub(crate) struct Open {
    router: Router,
    limits: Limits,
    all: All,
    next: u64,
    ends: watch::Sender<bool>,
    /// A signal that a connection has ended.
    freed: Arc<Notify>,
    cut_off: Arc<CutOff>,
    metrics: Arc<Metrics>,
}

impl Open {
    pub(crate) fn new(router: Router, limits: Limits, metrics: &Arc<Metrics>) -> Self {
        Self {
            router,
            limits,
            all: All::default(),
            next: 0,
            ends: watch::Sender::new(false),
            freed: Arc::default(),
            cut_off: Arc::new(CutOff::new(metrics)),
            metrics: metrics.clone(),
        }
    }

    /// Logs the connections that were closed since the last call.
    pub(crate) fn say(&self) {
        self.cut_off.say();
    }

    /// Waits until a further connection may be opened. If the maximum number of connections is
    /// open, closes the one that has waited longest for a request.
    pub(crate) async fn room(&self) {
        loop {
            let (open, closing) = {
                let all = lock(&self.all);
                (all.len(), all.values().any(|connection| connection.is_closing()))
            };
            if open < self.limits.connections {
                return;
            }
            if !closing {
                self.close_one();
            }
            // Wait until the task of the closed connection, or of an answered request, has ended.
            let _ = timeout(LOOK, self.freed.notified()).await;
        }
    }

    /// Closes the connection that has waited longest for a complete request. Returns whether there
    /// was one.
    pub(crate) fn close_one(&self) -> bool {
        let all = lock(&self.all);
        let waiting = all.values().filter(|one| !one.is_working() && !one.is_closing());
        let oldest = waiting.min_by_key(|connection| connection.waits_since());
        if let Some(connection) = oldest {
            connection.close("too many connections are open");
        }
        oldest.is_some()
    }

    /// Starts a task that serves a connection.
    pub(crate) fn serve(&mut self, stream: TcpStream, peer: SocketAddr) {
        // Answers are small, and clients wait for them.
        let _ = stream.set_nodelay(true);
        let connection = Arc::new(Connection::new(peer, &self.cut_off));
        let number = self.next;
        self.next += 1;
        lock(&self.all).insert(number, connection.clone());
        self.metrics.connections.inc();
        let held = Held {
            number,
            all: self.all.clone(),
            freed: self.freed.clone(),
            metrics: self.metrics.clone(),
        };
        let served = served(
            stream,
            self.router.clone(),
            self.limits,
            connection.clone(),
            self.ends.subscribe(),
        );
        let task = tokio::spawn(async move {
            let _held = held;
            served.await;
        });
        connection.set_task(task.abort_handle());
    }

    /// Ends every connection after its complete requests are answered. Closes the remaining
    /// connections when `longest` is over.
    pub(crate) async fn drain(self, longest: Duration) {
        self.ends.send_replace(true);
        let started = Instant::now();
        let until = started + longest;
        loop {
            let left = Instant::now() >= until;
            let halves = Instant::now() >= started + LAST.min(longest);
            {
                let all = lock(&self.all);
                if all.is_empty() {
                    break;
                }
                for connection in all.values().filter(|one| !one.is_closing()) {
                    let whole = connection.is_working() || connection.is_unread();
                    if left {
                        connection.close("its request was not answered before the shutdown");
                    } else if halves && !whole {
                        connection.close("its request was incomplete at the shutdown");
                    }
                }
            }
            if left {
                break;
            }
            sleep_until((Instant::now() + LOOK).min(until)).await;
        }
        self.say();
    }
}

/// A guard that removes a connection from the set when its task ends for any reason.
struct Held {
    number: u64,
    all: All,
    freed: Arc<Notify>,
    metrics: Arc<Metrics>,
}

impl Drop for Held {
    fn drop(&mut self) {
        lock(&self.all).remove(&self.number);
        self.freed.notify_one();
        self.metrics.connections.dec();
    }
}

fn lock(all: &All) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until the service ends.
async fn ended_by(ends: &mut watch::Receiver<bool>) {
    // An error means that the sender was dropped.
    let _ = ends.wait_for(|ends| *ends).await;
}

async fn served(
    stream: TcpStream,
    router: Router,
    limits: Limits,
    connection: Arc<Connection>,
    mut ends: watch::Receiver<bool>,
) {
    let state = connection.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (router, state) = (router.clone(), state.clone());
        async move {
            if request.body().is_end_stream() {
                state.begin_work();
            }
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(state.clone());
            let response = router.oneshot(request).await;
            state.answered();
            response
        }
    });
    let io = TokioIo::new(Limited::new(stream, connection.clone(), limits.unread));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(LONGEST_HEAD)
        .serve_connection(io, service);
    let mut served = pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = ended_by(&mut ends) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    let Err(error) = ended else { return };
    // A client that sends no further request is disconnected without a message.
    if error.is_timeout() && connection.has_begun() {
        connection.cut_off("the head of the request did not arrive in time");
    } else if error.is_parse_too_large() {
        connection.cut_off("the head of a request is too long");
    } else if error.is_parse() {
        connection.cut_off("the bytes are not an HTTP request");
    }
}
