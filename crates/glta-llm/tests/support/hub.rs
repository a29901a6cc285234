//! A hub on the loopback interface, and a second server to which it redirects large files. The hub
//! follows the protocol of <https://huggingface.co>, and tests can make it fail.
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest, Sha256};

pub const ID: &str = "owner/tiny";
pub const TOKEN: &str = "hf_secret";

/// A request of a client.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Path and query of the URL.
    pub path: String,
    /// Headers, with names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Whether the second server received the request.
    pub cdn: bool,
}

impl Request {
    pub fn is_body(&self) -> bool {
        self.method == "GET" && !self.path.starts_with("/api/models/")
    }

    /// Returns the first requested byte.
    fn from(&self) -> Option<usize> {
        self.headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// The reply to a request.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Number of bytes of the body after which the connection is closed.
    pub cut: Option<usize>,
    /// Time to wait without sending, instead of closing the connection.
    pub stall: Option<Duration>,
}

impl Reply {
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self.headers.push((name.into(), value.to_string()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self
    }

    pub fn body(self, body: &[u8]) -> Self {
        let mut reply = self.header("Content-Length", body.len());
        reply.body = body.to_vec();
        reply
    }

    pub fn cut(mut self, after: usize) -> Self {
        self.cut = Some(after);
        self
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

/// One revision: branch, commit and files.
pub type Revision = (String, String, BTreeMap<String, Vec<u8>>);

/// A function that changes the reply to a request.
pub type Fault = Box<dyn FnMut(&Request, Reply) -> Reply + Send>;

struct State {
    revisions: Vec<Revision>,
    log: Vec<Request>,
    fault: Option<Fault>,
    /// Whether to reject requests without the token.
    private: bool,
}

pub struct Server {
    state: Arc<Mutex<State>>,
    hub: SocketAddr,
}

impl Server {
    pub fn start(revisions: Vec<Revision>) -> Self {
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (hub, cdn) = (bind(), bind());
        let (address, cdn_address) = (hub.local_addr().unwrap(), cdn.local_addr().unwrap());
        let state = State { revisions, log: Vec::new(), fault: None, private: false };
        let state = Arc::new(Mutex::new(state));
        for (listener, is_cdn) in [(hub, false), (cdn, true)] {
            let state = Arc::clone(&state);
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let state = Arc::clone(&state);
                    std::thread::spawn(move || serve(stream, &state, is_cdn, cdn_address));
                }
            });
        }
        Self { state, hub: address }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.hub)
    }

    /// Passes all later replies through `fault`.
    pub fn fault(&self, fault: impl FnMut(&Request, Reply) -> Reply + Send + 'static) {
        self.state.lock().unwrap().fault = Some(Box::new(fault));
    }

    pub fn heal(&self) {
        self.state.lock().unwrap().fault = None;
    }

    pub fn set_private(&self) {
        self.state.lock().unwrap().private = true;
    }

    /// Changes the commit and the files of a branch.
    pub fn push(&self, revision: Revision) {
        let mut state = self.state.lock().unwrap();
        state.revisions.retain(|(branch, _, _)| *branch != revision.0);
        state.revisions.push(revision);
    }

    /// Returns the requests since the last call.
    pub fn log(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().log)
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>, cdn: bool, cdn_address: SocketAddr) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(first) = lines.next() else {
        return;
    };
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let headers = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_lowercase(), value.trim().to_owned()))
        })
        .collect();
    let request = Request { method, path, headers, cdn };
    let reply = {
        let mut state = state.lock().unwrap();
        state.log.push(request.clone());
        let reply = answer(&state, &request, cdn_address);
        match &mut state.fault {
            Some(fault) => fault(&request, reply),
            None => reply,
        }
    };
    let mut head = format!("HTTP/1.1 {} Whatever\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    let _ = stream.write_all(head.as_bytes());
    if request.method != "HEAD" {
        let end = reply.cut.unwrap_or(reply.body.len()).min(reply.body.len());
        let _ = stream.write_all(&reply.body[..end]);
    }
    let _ = stream.flush();
    if let Some(pause) = reply.stall {
        std::thread::sleep(pause);
    }
}

fn answer(state: &State, request: &Request, cdn_address: SocketAddr) -> Reply {
    let path = request.path.split('?').next().unwrap();
    if request.cdn {
        // Signed URLs must be requested without the token.
        assert!(!request.headers.contains_key("authorization"), "the token left the hub");
        let hash = path.trim_start_matches("/blob/");
        let all = state.revisions.iter().flat_map(|(_, _, files)| files.values());
        return match all.into_iter().find(|body| sha256(body) == hash) {
            Some(body) => content(request, body).header("ETag", "\"of-the-cdn\""),
            None => Reply::new(403),
        };
    }
    let bearer = format!("Bearer {TOKEN}");
    if state.private && request.headers.get("authorization") != Some(&bearer) {
        return Reply::new(401).header("X-Error-Code", "RepoNotFound");
    }
    let not_found = |code: &str| Reply::new(404).header("X-Error-Code", code);
    let find = |name: &str| {
        let name = name.replace("%2F", "/");
        state.revisions.iter().find(|(branch, commit, _)| *branch == name || *commit == name)
    };
    if let Some(rest) = path.strip_prefix("/api/models/") {
        let Some(revision) = rest.strip_prefix(&format!("{ID}/revision/")) else {
            return not_found("RepoNotFound");
        };
        let Some((_, commit, files)) = find(revision) else {
            return not_found("RevisionNotFound");
        };
        let siblings: Vec<_> =
            files.keys().map(|name| serde_json::json!({"rfilename": name})).collect();
        let listing = serde_json::json!({"id": ID, "sha": commit, "siblings": siblings});
        return Reply::new(200).body(listing.to_string().as_bytes());
    }
    // The hub serves small files at another path.
    let (rest, moved) = match path.strip_prefix("/api/resolve-cache") {
        Some(rest) => (rest, true),
        None => (path, false),
    };
    let Some((revision, name)) =
        rest.strip_prefix(&format!("/{ID}/resolve/")).and_then(|rest| rest.split_once('/'))
    else {
        return not_found("RepoNotFound");
    };
    let name = name.replace("%20", " ");
    let Some((_, commit, files)) = find(revision) else {
        return not_found("RevisionNotFound");
    };
    let Some(body) = files.get(&name) else {
        return not_found("EntryNotFound");
    };
    let hash = sha256(body);
    let reply = if name.ends_with(".safetensors") {
        Reply::new(302)
            .header("Location", format!("http://{cdn_address}/blob/{hash}?signature=1"))
            .header("X-Linked-Size", body.len())
            .header("X-Linked-Etag", format!("\"{hash}\""))
            .header("ETag", "\"of-the-pointer\"")
            .body(b"Found. Redirecting")
    } else if name == "tokenizer.json" && !moved {
        Reply::new(307).header("Location", format!("/api/resolve-cache{path}?x=1")).body(b"moved")
    } else {
        // Git's hashes have 40 digits.
        content(request, body).header("ETag", format!("\"{}\"", &hash[..40]))
    };
    reply.header("X-Repo-Commit", commit)
}

/// Returns a file, or its end if the request has a range.
fn content(request: &Request, body: &[u8]) -> Reply {
    match request.from() {
        None => Reply::new(200).body(body).header("Accept-Ranges", "bytes"),
        Some(from) if from >= body.len() => {
            Reply::new(416).header("Content-Range", format!("bytes */{}", body.len())).body(b"")
        }
        Some(from) => Reply::new(206)
            .body(&body[from..])
            .header("Content-Range", format!("bytes {from}-{}/{}", body.len() - 1, body.len())),
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
