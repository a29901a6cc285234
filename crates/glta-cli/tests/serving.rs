//! Tests the program `glta serve` with kills, signals and many connections, and a fit with its
//! journal.
#![cfg(all(unix, feature = "serve"))]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use glta_serve::Journal;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with the tables of a small shop and a model of them.
struct Shop {
    folder: TempDir,
}

impl Shop {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut orders = String::from("customer,product,date\n");
        for customer in 0..40 {
            for product in (0..10).filter(|p| p / 5 == customer % 2 && (p + customer) % 3 != 0) {
                let day = 1 + (customer + 3 * product) % 28;
                writeln!(orders, "c{customer},p{product},2026-03-{day:02}").unwrap();
            }
        }
        let mut products = String::from("product,name,category\n");
        for product in 0..12 {
            let name = if product % 10 < 5 { "Green tea" } else { "Oak table" };
            writeln!(products, "p{product},{name} {product},{name}").unwrap();
        }
        fs::write(folder.path().join("orders.csv"), orders).unwrap();
        fs::write(folder.path().join("products.csv"), products).unwrap();
        let shop = Self { folder };
        shop.fit("model", &[]);
        shop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn fit(&self, out: &str, more: &[&str]) {
        let [orders, products, out] = ["orders.csv", "products.csv", out].map(|n| self.path(n));
        let mut command = Command::new(env!("CARGO_BIN_EXE_glta"));
        command.arg("fit").arg("--interactions").arg(orders).arg("--items").arg(products);
        let columns = ["--user", "customer", "--item", "product", "--quiet"];
        let output = command.arg("--out").arg(out).args(columns).args(more).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts a service in a shell, after the commands `before`.
    fn serve(&self, before: &str, more: &[&str]) -> Service {
        let address_file = self.path("address");
        let _ = fs::remove_file(&address_file);
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{before} exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_glta")]);
        command.args(["serve", "--listen", "127.0.0.1:0", "--model"]).arg(self.path("model"));
        command.arg("--address-file").arg(&address_file).args(more);
        let log = fs::File::create(self.path("log")).unwrap();
        let child = command.stderr(log).stdout(Stdio::null()).spawn().unwrap();
        let mut service = Service { child, address: String::new(), log: self.path("log") };
        while service.address.is_empty() {
            assert!(service.child.try_wait().unwrap().is_none(), "{}", service.log());
            thread::sleep(Duration::from_millis(2));
            service.address = fs::read_to_string(&address_file).unwrap_or_default();
        }
        service
    }
}

struct Service {
    child: Child,
    address: String,
    log: PathBuf,
}

impl Service {
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a request and returns status and body, or `None` if the service ended before it answered.
fn call(address: &str, method: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
    let mut stream = TcpStream::connect(address).ok()?;
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close");
    write!(stream, "{head}\r\nContent-Length: {length}\r\n\r\n{body}").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, serde_json::from_str(body).unwrap_or_default()))
}

/// The writes that the service acknowledged: interactions by id, and items.
#[derive(Default)]
struct Acknowledged {
    interactions: BTreeMap<String, (String, String)>,
    unnamed: Vec<(String, String)>,
    items: Vec<String>,
}

#[test]
fn fifty_kills_neither_lose_nor_repeat_acknowledged_writes() {
    let shop = Shop::new();
    let acknowledged = Arc::new(Mutex::new(Acknowledged::default()));
    for round in 0..50 {
        let mut service = shop.serve("", &[]);
        let over = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let (address, over) = (service.address.clone(), over.clone());
                let acknowledged = acknowledged.clone();
                thread::spawn(move || write(&address, round, client, &over, &acknowledged))
            })
            .collect();
        // The service is killed at a different time in each round.
        thread::sleep(Duration::from_millis(20 + 7 * (round % 13)));
        service.child.kill().unwrap();
        service.child.wait().unwrap();
        over.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| client.join().unwrap());
    }
    let acknowledged = acknowledged.lock().unwrap();
    let Acknowledged { interactions, unnamed, items } = &*acknowledged;
    assert!(interactions.len() > 200 && items.len() > 20, "{}", interactions.len());

    // Another process reads what is on disk.
    let journal = Journal::read(shop.path("model.journal.sqlite")).unwrap();
    let mut by_id: BTreeMap<String, usize> = BTreeMap::new();
    let mut pairs: BTreeMap<(String, String), usize> = BTreeMap::new();
    for event in journal.interactions().unwrap() {
        match event.id {
            Some(id) => *by_id.entry(id).or_default() += 1,
            None => *pairs.entry((event.user, event.item)).or_default() += 1,
        }
    }
    assert!(by_id.values().chain(pairs.values()).all(|&times| times == 1));
    assert!(interactions.keys().all(|id| by_id.contains_key(id)));
    assert!(unnamed.iter().all(|pair| pairs.contains_key(pair)));
    let put = journal.items().unwrap();
    assert!(items.iter().all(|id| put.contains_key(id)));
    drop(journal);

    // The restarted service answers with the same writes.
    let service = shop.serve("", &[]);
    let mut of_users: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (user, item) in interactions.values().chain(unnamed) {
        of_users.entry(user).or_default().push(item);
    }
    for (user, items) in of_users {
        let asked = call(&service.address, "POST", "/recommend", &json!({"user": user})).unwrap();
        let history: Vec<&str> = asked.1["history"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["item"].as_str().unwrap())
            .collect();
        for item in items {
            assert_eq!(history.iter().filter(|&&id| id == item).count(), 1, "{user} {item}");
        }
    }
    for id in items {
        let found = call(&service.address, "GET", &format!("/items?q={id}"), &Value::Null).unwrap();
        assert_eq!(found.1[0]["item"], json!(id));
    }

    // A model that is fitted with the journal contains all of it.
    shop.fit("next", &["--journal", shop.path("model.journal.sqlite").to_str().unwrap()]);
    let users = fs::read_to_string(shop.path("next/users.jsonl")).unwrap();
    assert!(users.contains("\"r0c0\"") && users.contains("\"c0\""));
    let fitted = fs::read_to_string(shop.path("next/items.jsonl")).unwrap();
    assert!(items.iter().all(|id| fitted.contains(&format!("\"{id}\""))));
}

/// Writes until the service is gone. Each interaction is sent again, as by a client that got no
/// answer.
fn write(
    address: &str,
    round: u64,
    client: u64,
    over: &AtomicBool,
    acknowledged: &Mutex<Acknowledged>,
) {
    let user = format!("r{}c{client}", round / 10);
    for n in 0.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let (id, item) = (format!("{round}-{client}-{n}"), format!("p{}", n % 12));
        let other = format!("visitor {round} {client} {n}");
        let body = json!([{"user": user, "item": item, "id": id}, {"user": other, "item": item}]);
        for _ in 0..2 {
            if let Some((200, _)) = call(address, "POST", "/interactions", &body) {
                let mut known = acknowledged.lock().unwrap();
                known.interactions.insert(id.clone(), (user.clone(), item.clone()));
                let pair = (other.clone(), item.clone());
                if !known.unnamed.contains(&pair) {
                    known.unnamed.push(pair);
                }
            }
        }
        if n == 0 {
            let id = format!("new-{round}-{client}-{n}");
            let fields = json!({"title": format!("Green tea {id}"), "category": "Green tea"});
            if let Some((201, _)) = call(address, "PUT", &format!("/items/{id}"), &fields) {
                acknowledged.lock().unwrap().items.push(id);
            }
        }
    }
}

#[test]
fn deleted_users_are_left_out_of_the_next_fit() {
    let shop = Shop::new();
    let service = shop.serve("", &[]);
    let written = json!([{"user": "c1", "item": "p7"}, {"user": "new", "item": "p7"}]);
    assert_eq!(call(&service.address, "POST", "/interactions", &written).unwrap().0, 200);
    for user in ["c0", "c1"] {
        let path = format!("/users/{user}");
        assert_eq!(call(&service.address, "DELETE", &path, &Value::Null).unwrap().0, 204);
    }
    let again = json!([{"user": "c1", "item": "p11"}]);
    assert_eq!(call(&service.address, "POST", "/interactions", &again).unwrap().0, 200);
    // The fit reads the journal while the service runs.
    shop.fit("next", &["--journal", shop.path("model.journal.sqlite").to_str().unwrap()]);
    let users = fs::read_to_string(shop.path("next/users.jsonl")).unwrap();
    let of = |user: &str| -> Option<Value> {
        let mut lines = users.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.find(|line| line["raw_id"] == user)
    };
    assert!(of("c0").is_none());
    assert_eq!(of("c1").unwrap()["train"].as_array().unwrap().len(), 1);
    assert_eq!(of("new").unwrap()["train"].as_array().unwrap().len(), 1);
    assert!(of("c2").unwrap()["train"].as_array().unwrap().len() > 1);
}

#[test]
fn one_signal_drains_and_a_second_one_ends_at_once() {
    let shop = Shop::new();
    // The service waits for a client that does not read for longer than the test may take.
    let slow = ["--unread-timeout", "600000"];
    let waiting = |service: &Service| {
        let stream = TcpStream::connect(&service.address).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        let requests = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2000);
        // Fails when all buffers are full, because the answers are not read.
        while (&stream).write(&requests).is_ok() {}
        stream
    };
    let mut service = shop.serve("", &[&slow[..], &["--drain", "300"]].concat());
    let held = waiting(&service);
    service.signal("TERM");
    assert_eq!(service.child.wait().unwrap().code(), Some(0));
    assert!(service.log().contains("was not answered before the shutdown"), "{}", service.log());
    drop(held);

    let mut service = shop.serve("", &[&slow[..], &["--drain", "600000"]].concat());
    let held = waiting(&service);
    service.signal("TERM");
    while !service.log().contains("another signal ends the process at once") {
        thread::sleep(Duration::from_millis(5));
    }
    assert!(service.child.try_wait().unwrap().is_none());
    service.signal("TERM");
    assert_eq!(service.child.wait().unwrap().code(), Some(143));
    drop(held);
}

/// Returns head and text of an answer.
fn raw(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), text.to_owned())
}

/// Opens more connections than the process may open files, all with incomplete requests.
#[test]
fn few_descriptors_are_enough_for_many_connections() {
    let shop = Shop::new();
    let service = shop.serve("ulimit -n 128;", &["--head-timeout", "60000"]);
    let mut held = Vec::new();
    for n in 0..700 {
        let mut stream = TcpStream::connect(&service.address).unwrap();
        if n % 2 == 0 {
            // The connection may already be closed.
            let _ = stream.write_all(b"POST /recommend HTTP/1.1\r\nHost: x\r\n");
        }
        held.push(stream);
        if n % 50 == 49 {
            assert!(raw(&service.address, "/health").0.starts_with("HTTP/1.1 200"));
        }
    }
    let started = Instant::now();
    while !service.log().contains("too many connections are open") {
        assert!(started.elapsed() < Duration::from_secs(60), "{}", service.log());
        thread::sleep(Duration::from_millis(10));
    }
    assert!(service.log().contains("instead of 1024"), "{}", service.log());
    let written = json!([{"user": "c0", "item": "p3"}]);
    assert_eq!(call(&service.address, "POST", "/interactions", &written).unwrap().0, 200);
    assert!(Path::new(&shop.path("model.journal.sqlite")).exists());
}
