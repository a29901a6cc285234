use hf_hub::Repo;
use hf_hub::api::RepoInfo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ureq::http::{Response, header};
use ureq::{Agent, Body};
use url::Url;

use super::HubOptions;
use crate::error::Error;

/// An HTTP client for the hub and the servers that it redirects to.
pub(super) struct Client {
    agent: Agent,
    endpoint: Url,
    token: Option<String>,
}

/// Metadata of a file on the hub.
pub(super) struct Metadata {
    /// Name of the blob: the SHA-256 for a large file, and git's hash for all other files.
    pub(super) etag: String,
    /// Size in bytes.
    pub(super) size: u64,
}

/// The error of a failed request, and whether a retry may succeed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) transient: bool,
}

type Attempt<T> = Result<T, Failure>;

impl Failure {
    pub(super) fn transient(url: &Url, problem: impl ToString) -> Self {
        Self { error: Error::hub(url.as_str(), problem), transient: true }
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
/// Maximum size of a response with a repository's listing. The largest listings are smaller.
const MAX_INFO_BYTES: u64 = 64 << 20;

impl Client {
    pub(super) fn new(options: &HubOptions) -> Result<Self, Error> {
        let endpoint = Url::parse(&options.endpoint)
            .ok()
            .filter(|url| ["http", "https"].contains(&url.scheme()))
            .ok_or_else(|| {
                Error::Input(format!("the endpoint {:?} is not an http(s) URL", options.endpoint))
            })?;
        let timeout = Some(options.timeout);
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // Follow redirects here, because their headers are needed and only the endpoint may get
            // the token.
            .max_redirects(0)
            .timeout_connect(timeout)
            .timeout_recv_response(timeout)
            .timeout_per_read(timeout)
            .user_agent(concat!("glta-llm/", env!("CARGO_PKG_VERSION")))
            // Lengths and ranges must refer to the uncompressed file.
            .accept_encoding("identity");
        Ok(Self { agent: config.build().into(), endpoint, token: options.token.clone() })
    }

    /// Joins a path to the endpoint, which may itself have a path.
    fn url(&self, path: &str) -> Attempt<Url> {
        let url = format!("{}{path}", self.endpoint.as_str().trim_end_matches('/'));
        Url::parse(&url).map_err(|e| Failure::fatal(Error::hub(url, e)))
    }

    /// Returns the token if the URL has the scheme, host and port of the endpoint.
    fn token_for(&self, url: &Url) -> Option<&str> {
        self.token.as_deref().filter(|_| url.origin() == self.endpoint.origin())
    }

    /// Requests the commit and the files of a revision.
    pub(super) fn info(&self, repo: &Repo) -> Attempt<RepoInfo> {
        let url = self.url(&format!("/api/{}", repo.api_url()))?;
        let mut answer = self.follow(Method::Get, &url, None, |_| false)?;
        let body = answer.response.body_mut().with_config().limit(MAX_INFO_BYTES).read_to_vec();
        let body = body.map_err(|e| Failure::transient(&url, e))?;
        serde_json::from_slice(&body).map_err(|e| {
            Failure::fatal(Error::hub(url, format!("not a repository's listing: {e}")))
        })
    }

    /// Requests the ETag and the size of the file at a path of the endpoint.
    pub(super) fn metadata(&self, path: &str, commit: &str) -> Attempt<Metadata> {
        let url = self.url(path)?;
        let mut linked_size = None;
        let mut linked_etag = None;
        let mut wrong_commit = None;
        let answer = self.follow(Method::Head, &url, None, |response| {
            let text = |name| text_header(response, name);
            wrong_commit = wrong_commit.take().or(text("x-repo-commit").filter(|c| c != commit));
            linked_etag = linked_etag.take().or_else(|| text("x-linked-etag"));
            linked_size = linked_size.or_else(|| text("x-linked-size")?.parse().ok());
            // After this response come servers with their own ETags and signed URLs.
            linked_etag.is_some() && linked_size.is_some()
        })?;
        let fatal = |problem: String| Failure::fatal(Error::hub(url.as_str(), problem));
        if let Some(other) = wrong_commit {
            return Err(fatal(format!("the hub answers for commit {other}, not for {commit}")));
        }
        let etag = linked_etag.or_else(|| text_header(&answer.response, "etag"));
        let size = linked_size.or_else(|| content_length(&answer.response));
        let (Some(etag), Some(size)) = (etag, size) else {
            return Err(fatal(
                "the response has no ETag or no length: is the endpoint a mirror of the hub?"
                    .into(),
            ));
        };
        // The ETag becomes a file name.
        let name = etag.trim_start_matches("W/").trim_matches('"');
        let is_valid = name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.len() <= 128
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
        if !is_valid {
            return Err(fatal(format!("the ETag {etag:?} cannot name a file")));
        }
        Ok(Metadata { etag: name.to_owned(), size })
    }

    /// Requests the file at a path of the endpoint, starting at byte `from` if the server supports
    /// ranges.
    pub(super) fn get(&self, path: &str, from: u64) -> Attempt<Answer> {
        let url = self.url(path)?;
        self.follow(Method::Get, &url, Some(from).filter(|&from| from > 0), |_| false)
    }

    /// Follows redirects until `enough` returns true or there is no further redirect. Failure
    /// statuses other than 416 are errors.
    fn follow(
        &self,
        method: Method,
        url: &Url,
        from: Option<u64>,
        mut enough: impl FnMut(&Response<Body>) -> bool,
    ) -> Attempt<Answer> {
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = match method {
                Method::Get => self.agent.get(url.as_str()),
                Method::Head => self.agent.head(url.as_str()),
            };
            if let Some(token) = self.token_for(&url) {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            if let Some(from) = from {
                request = request.header(header::RANGE, format!("bytes={from}-"));
            }
            let response = request.call().map_err(|error| Failure {
                // An invalid request fails again.
                transient: !matches!(error, ureq::Error::Http(_) | ureq::Error::BadUri(_)),
                error: Error::hub(url.as_str(), error),
            })?;
            let status = response.status();
            if enough(&response) && !status.is_client_error() && !status.is_server_error() {
                return Ok(Answer { url, response });
            }
            match status.as_u16() {
                200 | 206 | 416 => return Ok(Answer { url, response }),
                301 | 302 | 303 | 307 | 308 => {
                    let fatal = |problem| Failure::fatal(Error::hub(url.as_str(), problem));
                    let Some(location) = text_header(&response, "location") else {
                        return Err(fatal("a redirect without Location".to_owned()));
                    };
                    let next = url
                        .join(&location)
                        .map_err(|e| fatal(format!("redirected to {location:?}: {e}")))?;
                    if url.scheme() == "https" && next.scheme() != "https" {
                        return Err(fatal(format!("redirected to {next}, which is not encrypted")));
                    }
                    url = next;
                }
                code => return Err(self.refused(&url, code, &response)),
            }
        }
        Err(Failure::fatal(Error::hub(url, format!("more than {MAX_REDIRECTS} redirects"))))
    }

    fn refused(&self, url: &Url, code: u16, response: &Response<Body>) -> Failure {
        let reason = text_header(response, "x-error-code").unwrap_or_default();
        let problem = match (code, reason.as_str()) {
            // The hub gives the same answer for repositories that do not exist.
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
            error: Error::hub(url.as_str(), problem),
            transient: code == 408 || code == 429 || code >= 500,
        }
    }
}

/// The last response of a chain of redirects, and its URL.
pub(super) struct Answer {
    pub(super) url: Url,
    pub(super) response: Response<Body>,
}

pub(super) fn text_header(response: &Response<Body>, name: &str) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
}

pub(super) fn content_length(response: &Response<Body>) -> Option<u64> {
    text_header(response, "content-length")?.parse().ok()
}

/// Checks a commit, which becomes the name of a folder.
pub(super) fn check_commit(commit: &str) -> Result<(), String> {
    if (7..=64).contains(&commit.len()) && commit.chars().all(|c| c.is_ascii_hexdigit()) {
        return Ok(());
    }
    Err(format!("{commit:?} is not a commit"))
}

/// The characters that a URL must escape: all except the unreserved ones of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Escapes a file name for a URL.
pub(super) fn escape(name: &str) -> String {
    utf8_percent_encode(name, RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_goes_to_the_endpoint_alone() {
        let client = |endpoint: &str| {
            let options = HubOptions { token: Some("t".into()), ..HubOptions::new("cache") };
            Client::new(&HubOptions { endpoint: endpoint.into(), ..options })
        };
        let hub = client("https://hub.example/mirror/").unwrap();
        for own in
            ["https://hub.example/b", "https://HUB.example?c", "https://hub.example:443/mirror/x"]
        {
            assert_eq!(hub.token_for(&Url::parse(own).unwrap()), Some("t"), "{own}");
        }
        for other in [
            "http://hub.example/b",
            "https://hub.example:81/b",
            "https://hub.example.evil/b",
            "https://hub.example@evil/b",
            "https://evil/https://hub.example",
            "https://evil\\@hub.example/b",
        ] {
            assert_eq!(hub.token_for(&Url::parse(other).unwrap()), None, "{other}");
        }
        assert_eq!(hub.url("/api/x").unwrap().as_str(), "https://hub.example/mirror/api/x");
        for wrong in ["hub.example", "ftp://hub.example", "https://", "file:///hub"] {
            assert!(client(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(escape("gptq 4bit+é.safetensors"), "gptq%204bit%2B%C3%A9.safetensors");
    }
}
