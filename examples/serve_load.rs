//! Load on a running `serve`: requests per second and how long they take, or
//! malformed bodies.
//!
//! ```text
//! cargo run --release --example serve_load -- --at 127.0.0.1:8080 --clients 32 --seconds 10
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr)]

// This example needs only a part of it.
#[allow(dead_code)]
mod common;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use common::Result;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::{Value, json};

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
    common::exit(|| match args.malformed {
        Some(count) => malformed(&args, count),
        None => load(&args),
    })
}

fn agent() -> ureq::Agent {
    let timeout = Some(Duration::from_secs(60));
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(timeout).build().into()
}

/// Status and body.
fn post(agent: &ureq::Agent, url: &str, body: &[u8]) -> Result<(u16, String)> {
    let mut response = agent.post(url).send(body)?;
    Ok((response.status().as_u16(), response.body_mut().read_to_string()?))
}

fn some_users(args: &Args) -> Result<Vec<String>> {
    let text =
        agent().get(format!("http://{}/users", args.at)).call()?.body_mut().read_to_string()?;
    Ok(serde_json::from_str(&text)?)
}

fn load(args: &Args) -> Result<()> {
    let users = some_users(args)?;
    let url = format!("http://{}/recommend", args.at);
    let started = Instant::now();
    let until = started + Duration::from_secs(args.seconds);
    // Times of the answered, and how many were refused or answered too late.
    let client = |n: u64| -> std::result::Result<(Vec<f64>, usize), String> {
        let (agent, mut random) = (agent(), ChaCha8Rng::seed_from_u64(n));
        let (mut times, mut refused) = (Vec::new(), 0);
        while Instant::now() < until && !common::interrupt::asked() {
            let user = users.choose(&mut random).ok_or("there is no user")?;
            let body = json!({"user": user, "k": 10}).to_string();
            let asked = Instant::now();
            let (status, text) = post(&agent, &url, body.as_bytes()).map_err(|e| e.to_string())?;
            match status {
                200 => times.push(asked.elapsed().as_secs_f64()),
                503 | 504 => refused += 1,
                _ => return Err(format!("{status}: {text}")),
            }
        }
        Ok((times, refused))
    };
    let all = std::thread::scope(|scope| {
        let client = &client;
        let threads: Vec<_> = (0..args.clients).map(|n| scope.spawn(move || client(n))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err("a client panicked".to_owned()))
        };
        threads.into_iter().map(join).collect::<std::result::Result<Vec<_>, String>>()
    })?;
    let refused: usize = all.iter().map(|(_, refused)| refused).sum();
    let mut times: Vec<f64> = all.into_iter().flat_map(|(times, _)| times).collect();
    times.sort_by(f64::total_cmp);
    if times.is_empty() {
        return Err(format!("none of {refused} requests was answered").into());
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

fn malformed(args: &Args, count: usize) -> Result<()> {
    let users = some_users(args)?;
    let good = json!({"user": users.first().ok_or("there is no user")?, "k": 3}).to_string();
    let (agent, mut random) = (agent(), ChaCha8Rng::seed_from_u64(1));
    let mut by_status = std::collections::BTreeMap::<u16, usize>::new();
    for n in 0..count {
        let path = ["/recommend", "/recommend/batch"][n % 2];
        let url = format!("http://{}{path}", args.at);
        let mut body = good.clone().into_bytes();
        match n % 8 {
            0 => body.truncate(random.random_range(0..body.len())),
            1 => {
                body = (0..random.random_range(1..2000))
                    .map(|_| random.random::<u8>() | 0x80)
                    .collect()
            }
            2 => body = br#"{"user": "no such user", "k": 3, "requests": []}"#.to_vec(),
            3 => body = br#"{"requests": [{"user": 1}]}"#.to_vec(),
            4 => {
                body = json!({"items": [], "k": random.random_range(1..5)}).to_string().into_bytes()
            }
            5 => body = "[".repeat(random.random_range(1..20_000)).into_bytes(),
            6 => {
                body =
                    json!({"user": "x", "k": -random.random_range(1..9)}).to_string().into_bytes()
            }
            _ => body = vec![b' '; 300_000],
        }
        let (status, text) = post(&agent, &url, &body)?;
        let told = serde_json::from_str::<Value>(&text).is_ok_and(|v| v["error"].is_string());
        if !(400..500).contains(&status) || !told {
            let body = String::from_utf8_lossy(&body[..body.len().min(80)]);
            return Err(format!("{path} {body}: {status} {text}").into());
        }
        *by_status.entry(status).or_default() += 1;
    }
    let (status, text) = post(&agent, &format!("http://{}/recommend", args.at), good.as_bytes())?;
    if status != 200 {
        return Err(format!("a good request after them: {status} {text}").into());
    }
    println!("{count} malformed requests refused, by status {by_status:?}; a good one is answered");
    Ok(())
}
