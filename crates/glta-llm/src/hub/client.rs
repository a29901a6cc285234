use super::HubOptions;
use crate::error::Error;
use hf_hub::Repo;
use hf_hub::api::RepoInfo;
use std::fmt::Write;
use ureq::http::{Response, header};
use ureq::{Agent, Body};

/// Requests to the hub and to the servers that it redirects to.
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

/// What the hub says of a file.
pub(super) struct Metadata {
    /// Name of its blob: the SHA-256 of large files, git's hash of others.
    pub(super) etag: String,
    /// Bytes.
    pub(super) size: u64,
}

/// A request that failed, and whether the same one may well succeed later.
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) transient: bool,
}

type Attempt<T> = Result<T, Failure>;

impl Failure {
    pub(super) fn transient(url: &str, message: impl ToString) -> Self {
        Self { error: Error::hub(url, message), transient: true }
    }

    pub(super) fn fatal(error: Error) -> Self {
        Self { error, transient: false }
    }
}

#[derive(Clone, Copy)]
enum Method {
    Get,
    Head,
}

const MAX_REDIRECTS: usize = 10;
/// More than the largest listing of a repository.
const MAX_INFO_BYTES: u64 = 64 << 20;

impl Client {
    pub(super) fn new(options: &HubOptions) -> Self {
        let timeout = Some(options.timeout);
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // Followed here: the headers on the way count, and the token must
            // not leave the endpoint.
            .max_redirects(0)
            .timeout_connect(timeout)
            .timeout_recv_response(timeout)
            .timeout_per_read(timeout)
            .user_agent(concat!("glta-llm/", env!("CARGO_PKG_VERSION")))
            // Lengths and ranges are of the file itself.
            .accept_encoding("identity");
        Self {
            agent: config.build().into(),
            endpoint: options.endpoint.trim_end_matches('/').to_owned(),
            token: options.token.clone(),
        }
    }

    /// Commit and files of a revision.
    pub(super) fn info(&self, repo: &Repo) -> Attempt<RepoInfo> {
        let url = format!("{}/api/{}", self.endpoint, repo.api_url());
        let mut answer = self.follow(Method::Get, &url, None, |_| false)?;
        let body = answer.response.body_mut().with_config().limit(MAX_INFO_BYTES).read_to_vec();
        let body = body.map_err(|e| Failure::transient(&url, e))?;
        serde_json::from_slice(&body).map_err(|e| {
            Failure::fatal(Error::hub(&url, format!("not a repository's listing: {e}")))
        })
    }

    /// Identity and size of the file under a path of the endpoint.
    pub(super) fn metadata(&self, path: &str, commit: &str) -> Attempt<Metadata> {
        let url = format!("{}{path}", self.endpoint);
        let mut linked_size = None;
        let mut linked_etag = None;
        let mut wrong_commit = None;
        let answer = self.follow(Method::Head, &url, None, |response| {
            let text = |name| text_header(response, name);
            wrong_commit = wrong_commit.take().or(text("x-repo-commit").filter(|c| c != commit));
            linked_etag = linked_etag.take().or_else(|| text("x-linked-etag"));
            linked_size = linked_size.or_else(|| text("x-linked-size")?.parse().ok());
            // Beyond are servers with their own ETags and signed URLs.
            linked_etag.is_some() && linked_size.is_some()
        })?;
        let fatal = |message: String| Failure::fatal(Error::hub(&url, message));
        if let Some(wrong) = wrong_commit {
            return Err(fatal(format!("the hub answers for commit {wrong}, not for {commit}")));
        }
        let etag = linked_etag.or_else(|| text_header(&answer.response, "etag"));
        let size = linked_size.or_else(|| content_length(&answer.response));
        let (Some(etag), Some(size)) = (etag, size) else {
            return Err(fatal("the hub tells no ETag or no size; is this a hub's mirror?".into()));
        };
        // It becomes the name of a file.
        let name = etag.trim_start_matches("W/").trim_matches('"');
        let fine = name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.len() <= 128
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
        if !fine {
            return Err(fatal(format!("the ETag {etag:?} cannot name a file")));
        }
        Ok(Metadata { etag: name.to_owned(), size })
    }

    /// The contents of the file under a path of the endpoint, from a byte on if
    /// the server likes.
    pub(super) fn get(&self, path: &str, from: u64) -> Attempt<Answer> {
        let url = format!("{}{path}", self.endpoint);
        self.follow(Method::Get, &url, Some(from).filter(|&from| from > 0), |_| false)
    }

    /// Follows redirects until `enough` or the end; a status that means failure
    /// is one, other than 416.
    fn follow(
        &self,
        method: Method,
        url: &str,
        from: Option<u64>,
        mut enough: impl FnMut(&Response<Body>) -> bool,
    ) -> Attempt<Answer> {
        let mut url = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = match method {
                Method::Get => self.agent.get(&url),
                Method::Head => self.agent.head(&url),
            };
            if let Some(token) = self.token.as_ref().filter(|_| same_origin(&url, &self.endpoint)) {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            if let Some(from) = from {
                request = request.header(header::RANGE, format!("bytes={from}-"));
            }
            let response = request.call().map_err(|error| Failure {
                // What was wrong with the request will be so again.
                transient: !matches!(error, ureq::Error::Http(_) | ureq::Error::BadUri(_)),
                error: Error::hub(&url, error),
            })?;
            let status = response.status();
            if enough(&response) && !status.is_client_error() && !status.is_server_error() {
                return Ok(Answer { url, response });
            }
            match status.as_u16() {
                200 | 206 | 416 => return Ok(Answer { url, response }),
                301 | 302 | 303 | 307 | 308 => {
                    let Some(location) = text_header(&response, "location") else {
                        let message = "a redirect without Location";
                        return Err(Failure::fatal(Error::hub(&url, message)));
                    };
                    let next = join(&url, &location);
                    if url.starts_with("https:") && !next.starts_with("https:") {
                        let message = format!("redirected to {next}, which is not encrypted");
                        return Err(Failure::fatal(Error::hub(&url, message)));
                    }
                    url = next;
                }
                code => return Err(self.refused(&url, code, &response)),
            }
        }
        let message = format!("more than {MAX_REDIRECTS} redirects");
        Err(Failure::fatal(Error::hub(&url, message)))
    }

    fn refused(&self, url: &str, code: u16, response: &Response<Body>) -> Failure {
        let reason = text_header(response, "x-error-code").unwrap_or_default();
        let message = match (code, reason.as_str()) {
            // The hub also says so of repositories that it does not have.
            (401 | 403, _) | (_, "GatedRepo") => match self.token {
                None => "no such repository, or a private or gated one: \
                         check the id, or set HF_TOKEN"
                    .to_owned(),
                Some(_) => "refused with this HF_TOKEN: check the id, and on the model's page \
                            whether its licence has to be accepted"
                    .to_owned(),
            },
            (404, "RevisionNotFound") => {
                "no such revision: check the branch, tag or commit".to_owned()
            }
            (404, _) => "not found: check the id and the revision".to_owned(),
            (429, _) => "too many requests: try again later".to_owned(),
            _ => format!("the server answers {}", response.status()),
        };
        Failure {
            error: Error::hub(url, message),
            transient: code == 408 || code == 429 || code >= 500,
        }
    }
}

/// The last response and where it came from.
pub(super) struct Answer {
    pub(super) url: String,
    pub(super) response: Response<Body>,
}

pub(super) fn text_header(response: &Response<Body>, name: &str) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
}

pub(super) fn content_length(response: &Response<Body>) -> Option<u64> {
    text_header(response, "content-length")?.parse().ok()
}

/// Checks what becomes a folder's name.
pub(super) fn check_commit(commit: &str) -> Result<(), String> {
    if (7..=64).contains(&commit.len()) && commit.chars().all(|c| c.is_ascii_hexdigit()) {
        return Ok(());
    }
    Err(format!("{commit:?} is not a commit"))
}

/// A file's name in an URL.
pub(super) fn escape(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(byte.into());
            }
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

/// Scheme, host and port.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find(['/', '?', '#']).map_or(url.len(), |at| host + at);
    &url[..end]
}

fn same_origin(a: &str, b: &str) -> bool {
    origin(a).eq_ignore_ascii_case(origin(b))
}

/// Where a `Location` leads.
fn join(base: &str, location: &str) -> String {
    if location.contains("://") && !location.starts_with(['/', '?']) {
        return location.to_owned();
    }
    let origin = origin(base);
    if location.starts_with("//") {
        return format!("{}:{location}", base.split(':').next().unwrap_or("https"));
    }
    if location.starts_with('/') {
        return format!("{origin}{location}");
    }
    let path = base[origin.len()..].split(['?', '#']).next().unwrap_or_default();
    let folder = path.rfind('/').map_or("/", |at| &path[..=at]);
    format!("{origin}{folder}{location}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_resolved() {
        let base = "https://hub.example:8443/a/b?c=/d";
        for (location, expected) in [
            ("https://cdn.example/x?u=http://y", "https://cdn.example/x?u=http://y"),
            ("//cdn.example/x", "https://cdn.example/x"),
            ("/x?u=http://y", "https://hub.example:8443/x?u=http://y"),
            ("x", "https://hub.example:8443/a/x"),
        ] {
            assert_eq!(join(base, location), expected);
        }
        assert_eq!(join("https://hub.example", "x"), "https://hub.example/x");
        assert!(same_origin("https://a/b", "https://A?c"));
        assert!(!same_origin("https://a/b", "https://a:81/b"));
        assert!(!same_origin("https://a.evil/b", "https://a"));
        assert!(!same_origin("https://a@evil/b", "https://a"));
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(escape("gptq 4bit+é.safetensors"), "gptq%204bit%2B%C3%A9.safetensors");
    }
}
