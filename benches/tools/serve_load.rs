//! Load on a running `serve`: requests per second and how long they take, or
//! malformed bodies.
//!
//! ```text
//! cargo run --release --example serve_load -- --at 127.0.0.1:8080 --clients 32 --seconds 10
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::thread::{ScopedJoinHandle, scope};
use std::time::{Duration, Instant};

use clap::Parser;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::{Value, json};
use ureq::Agent;

/// Error as text, which threads can hand over.
type Result<T> = std::result::Result<T, String>;

/// Put load on a running `serve`.
#[derive(Debug, Parser)]
#[command(name = "serve_load", version)]
struct Args {
    /// Address and port of the service
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    at: String,
    /// Clients that each wait for an answer before they ask again
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..))]
    clients: u64,
    /// How long
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Instead, this many malformed requests: each must be refused, and a good one
    /// be answered afterwards
    #[arg(long, value_name = "N")]
    malformed: Option<usize>,
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
    let url = format!("http://{}/users", args.at);
    let mut response = agent().get(&url).call().map_err(|e| format!("{url}: {e}"))?;
    let text = response.body_mut().read_to_string().map_err(|e| format!("{url}: {e}"))?;
    let users: Vec<String> = serde_json::from_str(&text).map_err(|e| format!("{url}: {e}"))?;
    if users.is_empty() {
        return Err(format!("{url}: there is no user"));
    }
    Ok(users)
}

fn load(args: &Args) -> Result<()> {
    let users = some_users(args)?;
    let url = format!("http://{}/recommend", args.at);
    let started = Instant::now();
    let until = started + Duration::from_secs(args.seconds);
    let clients = scope(|scope| {
        let (url, users) = (&url, &users);
        let threads: Vec<_> =
            (0..args.clients).map(|n| scope.spawn(move || client(n, url, users, until))).collect();
        let join = |thread: ScopedJoinHandle<'_, Result<Client>>| {
            thread.join().unwrap_or_else(|_| Err("a client panicked".to_owned()))
        };
        threads.into_iter().map(join).collect::<Result<Vec<Client>>>()
    })?;
    let refused: usize = clients.iter().map(|client| client.refused).sum();
    let mut times: Vec<f64> = clients.into_iter().flat_map(|client| client.times).collect();
    times.sort_by(f64::total_cmp);
    if times.is_empty() {
        return Err(format!("none of {refused} requests was answered"));
    }
    let seconds = started.elapsed().as_secs_f64();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize] * 1e3;
    println!(
        "{} clients: {:.0} requests/s, p50 {:.1} ms, p99 {:.1} ms; {refused} refused or too late",
        args.clients,
        times.len() as f64 / seconds,
        at(0.5),
        at(0.99)
    );
    Ok(())
}

/// What one client saw.
#[derive(Default)]
struct Client {
    /// Seconds of each answered request.
    times: Vec<f64>,
    /// Requests that were refused or answered too late.
    refused: usize,
}

/// Asks for random users until the time is over.
fn client(seed: u64, url: &str, users: &[String], until: Instant) -> Result<Client> {
    let (agent, mut random) = (agent(), ChaCha8Rng::seed_from_u64(seed));
    let mut seen = Client::default();
    while Instant::now() < until {
        let body = json!({"user": users.choose(&mut random), "k": 10}).to_string();
        let asked = Instant::now();
        let (status, text) = post(&agent, url, body.as_bytes())?;
        match status {
            200 => seen.times.push(asked.elapsed().as_secs_f64()),
            503 | 504 => seen.refused += 1,
            _ => return Err(format!("{status}: {text}")),
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
        return Err(format!("a good request after them: {status} {text}"));
    }
    println!("{count} malformed requests refused, by status {by_status:?}; a good one is answered");
    Ok(())
}

/// One of eight kinds: cut off, binary, with unknown users, of wrong types, empty, nested,
/// out of range, too long.
fn malformed_body(n: usize, good: &str, random: &mut impl Rng) -> Vec<u8> {
    match n % 8 {
        0 => good.as_bytes()[..random.random_range(0..good.len())].to_vec(),
        1 => (0..random.random_range(1..2000)).map(|_| random.random::<u8>() | 0x80).collect(),
        2 => br#"{"user": "no such user", "k": 3, "requests": []}"#.to_vec(),
        3 => br#"{"requests": [{"user": 1}]}"#.to_vec(),
        4 => json!({"items": [], "k": random.random_range(1..5)}).to_string().into_bytes(),
        5 => "[".repeat(random.random_range(1..20_000)).into_bytes(),
        6 => json!({"user": "x", "k": -random.random_range(1..9)}).to_string().into_bytes(),
        _ => vec![b' '; 300_000],
    }
}
