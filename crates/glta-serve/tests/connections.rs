//! Tests that slow, malicious or many clients are disconnected, and that others are answered.

#![allow(clippy::unwrap_used)]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use glta_serve::{ServeConfig, Server, Service};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

mod support;

/// A server with short timeouts, and the sender that ends it.
struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<glta_serve::Result<()>>,
    _run: tempfile::TempDir,
}

async fn start(change: impl FnOnce(ServeConfig) -> ServeConfig) -> Running {
    let run = support::run();
    let config = change(ServeConfig {
        model: run.path().to_owned(),
        listen: "127.0.0.1:0".parse().unwrap(),
        head_ms: 300,
        body_ms: 300,
        unread_ms: 300,
        ..ServeConfig::default()
    });
    let server = Server::bind(Service::start(config, &support::CPU).unwrap()).await.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let address = server.address();
    let ended = tokio::spawn(server.run(async { stopped.await.unwrap_or_default() }));
    Running { address, stop, ended, _run: run }
}

fn connect(address: SocketAddr, sent: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(sent).unwrap();
    stream
}

/// Reads all bytes until the peer closes the connection.
fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

fn ask(address: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    rest(connect(address, request.as_bytes()))
}

const HALF_HEAD: &[u8] = b"POST /recommend HTTP/1.1\r\nHost: x\r\n";
const HALF_BODY: &[u8] = b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"us";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn incomplete_requests_and_long_heads_are_closed_and_counted() {
    let running = start(|config| config).await;
    let address = running.address;
    blocking(move || {
        let (head, body) = (connect(address, HALF_HEAD), connect(address, HALF_BODY));
        let nonsense = connect(address, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n");
        let idle = connect(address, b"");
        assert_eq!(rest(head), "");
        assert!(rest(body).starts_with("HTTP/1.1 408"));
        assert!(rest(nonsense).starts_with("HTTP/1.1 400"));
        assert_eq!(rest(idle), "");
        let mut long = connect(address, b"GET /health HTTP/1.1\r\nHost: x\r\nX: ");
        // The peer may close the connection before everything is written.
        let _ = long.write_all(&[b'x'; 200_000]);
        let refused = rest(long);
        assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 431"), "{refused}");
        for reason in [
            "the head of the request did not arrive in time",
            "the body of the request did not arrive in time",
            "the bytes are not an HTTP request",
            "the head of a request is too long",
        ] {
            let line = format!("glta_cut_off_total{{reason=\"{reason}\"}} 1");
            // A connection is counted after its client has read the end.
            let until = Instant::now() + Duration::from_secs(60);
            while !ask(address, "/metrics").contains(&line) {
                assert!(Instant::now() < until, "{}", ask(address, "/metrics"));
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    })
    .await;
    running.stop.send(()).unwrap();
    running.ended.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unread_answer_is_abandoned() {
    let running = start(|config| config).await;
    let address = running.address;
    blocking(move || {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        let request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2000);
        let reason = "glta_cut_off_total{reason=\"the answer is not read\"} 1";
        while !ask(address, "/metrics").contains(reason) {
            // The write fails when all buffers are full and the peer has closed the connection.
            let _ = (&stream).write(&request);
            std::thread::sleep(Duration::from_millis(20));
        }
    })
    .await;
    running.stop.send(()).unwrap();
    running.ended.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_answered_while_others_hold_more_connections_than_may_be_open() {
    let running = start(|config| ServeConfig { connections: 8, head_ms: 60_000, ..config }).await;
    let address = running.address;
    blocking(move || {
        let mut held = Vec::new();
        for n in 0..200 {
            held.push(connect(address, [HALF_HEAD, HALF_BODY, b""][n % 3]));
            if n % 20 == 19 {
                let answer = ask(address, "/health");
                assert!(answer.starts_with("HTTP/1.1 200"), "{n}: {answer}");
            }
        }
        let metrics = ask(address, "/metrics");
        let open = metrics.lines().find_map(|line| line.strip_prefix("glta_connections "));
        assert!(open.unwrap().parse::<u32>().unwrap() <= 8, "{metrics}");
        assert!(metrics.contains("too many connections are open"), "{metrics}");
    })
    .await;
    running.stop.send(()).unwrap();
    running.ended.await.unwrap().unwrap();
}

/// Complete requests are answered, incomplete ones do not delay the shutdown, and nothing delays it
/// for longer than the drain time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_waits_only_for_complete_requests() {
    let long = |config| ServeConfig {
        head_ms: 60_000,
        body_ms: 60_000,
        unread_ms: 60_000,
        // A request waits until another one completes its batch.
        batch: 2,
        batch_wait_ms: 60_000,
        timeout_ms: 60_000,
        drain_ms: 3000,
        ..config
    };
    let running = start(long).await;
    let address = running.address;
    let (head, body, whole) = blocking(move || {
        let body = r#"{"user": "user 0", "k": 1}"#;
        let length = body.len();
        let whole = format!(
            "POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let held = (
            connect(address, HALF_HEAD),
            connect(address, HALF_BODY),
            connect(address, whole.as_bytes()),
        );
        while !ask(address, "/metrics").contains("glta_waiting 1") {
            std::thread::sleep(Duration::from_millis(5));
        }
        held
    })
    .await;
    let started = Instant::now();
    running.stop.send(()).unwrap();
    blocking(move || {
        // Both end long before the complete request times out.
        assert_eq!((rest(head), rest(body)), (String::new(), String::new()));
        assert_eq!(rest(whole), "");
    })
    .await;
    running.ended.await.unwrap().unwrap();
    assert!(started.elapsed() >= Duration::from_secs(3));
}
