//! Puts load on a running `serve`: measures requests per second and their duration, or sends
//! malformed bodies.
//!
//! ```text
//! cargo run --release --example serve_load -- --at 127.0.0.1:8080 --clients 32 --seconds 10
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use clap::Parser;
use hyper::Request;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use ureq::Agent;

/// Errors as text, which can be sent between threads.
type Result<T> = std::result::Result<T, String>;

/// Put load on a running `serve`.
#[derive(Debug, Parser)]
#[command(name = "serve_load", version)]
struct Args {
    /// Address and port of the service
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    at: String,
    /// Number of clients that wait for each answer
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..))]
    clients: u64,
    /// Duration in seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Percentage of requests that write an interaction
    #[arg(long, value_name = "PERCENT", default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(..=100))]
    writes: u32,
    /// Only request items with this value of a field, such as category=Tea
    #[arg(long, value_name = "FIELD=VALUE", value_parser = filter)]
    filter: Option<(String, String)>,
    /// Send this many malformed requests instead; each must be rejected, and a valid one must be
    /// answered afterwards
    #[arg(long, value_name = "N")]
    malformed: Option<usize>,
}

fn filter(text: &str) -> Result<(String, String)> {
    let (field, value) = text.split_once('=').ok_or("expected FIELD=VALUE")?;
    Ok((field.to_owned(), value.to_owned()))
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match args.malformed {
        Some(count) => malformed(&args, count),
        None => load(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn agent() -> Agent {
    let timeout = Some(Duration::from_secs(60));
    Agent::config_builder().http_status_as_error(false).timeout_global(timeout).build().into()
}

/// Status and body.
fn post(agent: &Agent, url: &str, body: &[u8]) -> Result<(u16, String)> {
    let mut response = agent.post(url).send(body).map_err(|e| format!("{url}: {e}"))?;
    let text = response.body_mut().read_to_string().map_err(|e| format!("{url}: {e}"))?;
    Ok((response.status().as_u16(), text))
}

/// Users of the service, at least one.
fn some_users(args: &Args) -> Result<Vec<String>> {
    let url = format!("http://{}/users?limit=200", args.at);
    let users: Vec<String> = get(&url)?;
    if users.is_empty() {
        return Err(format!("{url}: the service has no users"));
    }
    Ok(users)
}

/// Items of the service, at least one.
fn some_items(args: &Args) -> Result<Vec<String>> {
    let url = format!("http://{}/items?limit=200", args.at);
    let items: Vec<Value> = get(&url)?;
    let ids: Vec<String> =
        items.iter().filter_map(|item| Some(item["item"].as_str()?.to_owned())).collect();
    if ids.is_empty() {
        return Err(format!("{url}: the service has no items"));
    }
    Ok(ids)
}

fn get<T: DeserializeOwned>(url: &str) -> Result<T> {
    let mut response = agent().get(url).call().map_err(|e| format!("{url}: {e}"))?;
    let text = response.body_mut().read_to_string().map_err(|e| format!("{url}: {e}"))?;
    serde_json::from_str(&text).map_err(|e| format!("{url}: {e}"))
}

/// The requests and writes of the clients.
struct Asked {
    at: String,
    users: Vec<String>,
    items: Vec<String>,
    filter: Value,
    writes: f64,
}

fn load(args: &Args) -> Result<()> {
    let items = if args.writes > 0 { some_items(args)? } else { Vec::new() };
    let asked = Asked {
        at: args.at.clone(),
        users: some_users(args)?,
        items,
        filter: args.filter.as_ref().map_or(Value::Null, |(f, v)| json!({ f: v })),
        writes: f64::from(args.writes) / 100.0,
    };
    let started = Instant::now();
    let until = started + Duration::from_secs(args.seconds);
    let asked = Arc::new(asked);
    let runtime = tokio::runtime::Runtime::new().map_err(|e| e.to_string())?;
    let clients = runtime.block_on(async {
        let clients: Vec<_> =
            (0..args.clients).map(|n| tokio::spawn(client(n, Arc::clone(&asked), until))).collect();
        let mut seen = Vec::new();
        for client in clients {
            seen.push(client.await.map_err(|_| "a client panicked".to_owned())??);
        }
        Ok::<_, String>(seen)
    })?;
    let seconds = started.elapsed().as_secs_f64();
    let refused: usize = clients.iter().map(|client| client.refused).sum();
    let writes: Vec<f64> = clients.iter().flat_map(|client| client.writes.clone()).collect();
    let mut times: Vec<f64> = clients.into_iter().flat_map(|client| client.times).collect();
    times.extend(&writes);
    if times.is_empty() {
        return Err(format!("all {refused} requests were rejected"));
    }
    let rate = times.len() as f64 / seconds;
    println!(
        "{} clients: {rate:.0} requests/s, {}; {refused} rejected or too late",
        args.clients,
        percentiles(times),
    );
    if !writes.is_empty() {
        println!("{} writes among them: {}", writes.len(), percentiles(writes));
    }
    Ok(())
}

fn percentiles(mut times: Vec<f64>) -> String {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize] * 1e3;
    format!("p50 {:.1} ms, p99 {:.1} ms", at(0.5), at(0.99))
}

/// The results of one client.
#[derive(Default)]
struct Client {
    /// Seconds of each answered request.
    times: Vec<f64>,
    /// Seconds of each acknowledged write.
    writes: Vec<f64>,
    /// Requests that were rejected or answered too late.
    refused: usize,
}

/// A persistent connection: a client with little cost next to the service.
struct Connection {
    at: String,
    sender: SendRequest<Body>,
}

impl Connection {
    async fn open(at: &str) -> Result<Self> {
        let failed = |e: &dyn std::fmt::Display| format!("{at}: {e}");
        let stream = TcpStream::connect(at).await.map_err(|e| failed(&e))?;
        stream.set_nodelay(true).map_err(|e| failed(&e))?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
        tokio::spawn(connection);
        Ok(Self { at: at.to_owned(), sender })
    }

    /// Status and body.
    async fn post(&mut self, path: &str, body: &Value) -> Result<(u16, Vec<u8>)> {
        let failed = |e: &dyn std::fmt::Display| format!("{path}: {e}");
        let request = Request::post(path)
            .header("host", &self.at)
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))
            .map_err(|e| failed(&e))?;
        self.sender.ready().await.map_err(|e| failed(&e))?;
        let response = self.sender.send_request(request).await.map_err(|e| failed(&e))?;
        let status = response.status().as_u16();
        let body = to_bytes(Body::new(response.into_body()), usize::MAX).await;
        Ok((status, body.map_err(|e| failed(&e))?.to_vec()))
    }
}

/// Requests lists for random users, or writes interactions for them, until the time is over.
async fn client(seed: u64, asked: Arc<Asked>, until: Instant) -> Result<Client> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut connection = Connection::open(&asked.at).await?;
    let mut seen = Client::default();
    while Instant::now() < until {
        let user = asked.users.choose(&mut random);
        let write = random.random_bool(asked.writes);
        let body = match (write, asked.filter.is_null()) {
            // Each write is by a new user, so that no history becomes long.
            (true, _) => {
                let visitor = format!("visitor {}", random.random::<u32>());
                json!([{"user": visitor, "item": asked.items.choose(&mut random)}])
            }
            (false, true) => json!({"user": user, "k": 10}),
            (false, false) => json!({"user": user, "k": 10, "filter": asked.filter}),
        };
        let (path, times) = if write {
            ("/interactions", &mut seen.writes)
        } else {
            ("/recommend", &mut seen.times)
        };
        let started = Instant::now();
        let (status, answer) = connection.post(path, &body).await?;
        match status {
            200 => times.push(started.elapsed().as_secs_f64()),
            503 | 504 => seen.refused += 1,
            _ => return Err(format!("{status}: {}", String::from_utf8_lossy(&answer))),
        }
    }
    Ok(seen)
}

fn malformed(args: &Args, count: usize) -> Result<()> {
    let users = some_users(args)?;
    let good = json!({"user": users[0], "k": 3}).to_string();
    let (agent, mut random) = (agent(), ChaCha8Rng::seed_from_u64(1));
    let mut by_status = BTreeMap::<u16, usize>::new();
    for n in 0..count {
        let path = ["/recommend", "/recommend/batch"][n % 2];
        let body = malformed_body(n, &good, &mut random);
        let (status, text) = post(&agent, &format!("http://{}{path}", args.at), &body)?;
        let explained = serde_json::from_str::<Value>(&text).is_ok_and(|v| v["error"].is_string());
        if !(400..500).contains(&status) || !explained {
            let body = String::from_utf8_lossy(&body[..body.len().min(80)]);
            return Err(format!("{path} {body}: {status} {text}"));
        }
        *by_status.entry(status).or_default() += 1;
    }
    let (status, text) = post(&agent, &format!("http://{}/recommend", args.at), good.as_bytes())?;
    if status != 200 {
        return Err(format!("a valid request afterwards: {status} {text}"));
    }
    println!(
        "{count} malformed requests were rejected, by status {by_status:?}; a valid one was \
        answered"
    );
    Ok(())
}

/// One of eight kinds of malformed bodies: truncated, binary, with unknown users, with wrong types,
/// without a user, nested, out of range, too long.
fn malformed_body(n: usize, good: &str, random: &mut impl Rng) -> Vec<u8> {
    match n % 8 {
        0 => good.as_bytes()[..random.random_range(0..good.len())].to_vec(),
        1 => (0..random.random_range(1..2000)).map(|_| random.random::<u8>() | 0x80).collect(),
        2 => br#"{"user": "no such user", "k": 3, "requests": []}"#.to_vec(),
        3 => br#"{"requests": [{"user": 1}]}"#.to_vec(),
        4 => json!({"k": random.random_range(1..5)}).to_string().into_bytes(),
        5 => "[".repeat(random.random_range(1..20_000)).into_bytes(),
        6 => json!({"user": "x", "k": -random.random_range(1..9)}).to_string().into_bytes(),
        _ => vec![b' '; 300_000],
    }
}
