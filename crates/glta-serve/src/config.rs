use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::{Error, Result};

/// Settings of the service. Times are in milliseconds.
///
/// ```
/// use glta_serve::ServeConfig;
///
/// let config = ServeConfig { model: "runs/shop".into(), batch: 1, ..ServeConfig::default() };
/// config.validate()?;
/// # Ok::<(), glta_serve::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServeConfig {
    /// Folder of a fitted model, or a link to one. There is no default.
    pub model: PathBuf,
    /// Folder of the language model's checkpoint; `None`, the default, for a model without one.
    pub llm: Option<PathBuf>,
    /// Address of the server. The default, `127.0.0.1:8080`, can only be reached from this machine.
    /// Port 0 chooses a free port. Not used if [`router`](crate::router) is mounted.
    pub listen: SocketAddr,
    /// Maximum length of a list. Default 100.
    pub max_k: usize,
    /// Maximum number of requests in `/recommend/batch`. Default 256.
    pub max_requests: usize,
    /// Maximum number of items in a request. Default 1000.
    pub max_items: usize,
    /// Maximum size of a body in bytes. Default 256 KiB.
    pub max_body: usize,
    /// Maximum number of requests that may wait for the model. Further requests get status 503.
    /// Default 1024.
    pub queue: usize,
    /// Maximum number of requests in a batch of the model; 1 disables batches. Default 32.
    pub batch: usize,
    /// Maximum time that a request waits for others to form a batch. Requests to a model without a
    /// prompt path do not wait. Default 2 ms.
    pub batch_wait_ms: u64,
    /// Time after which a request without an answer gets status 504. Default 10 s.
    pub timeout_ms: u64,
    /// Time between two checks of `model` for a new model. Default 2 s.
    pub watch_ms: u64,
    /// File of the journal, which stores the writes. The default is `NAME.journal.sqlite` next to
    /// the model's folder or link. The first write creates the file.
    pub journal: Option<PathBuf>,
    /// Token that writes must send as `Authorization: Bearer TOKEN`. Without a token, the default,
    /// writes are accepted only if `listen` is a loopback address.
    pub token: Option<Token>,
    /// Origins, such as `https://shop.example`, whose pages may send requests; `*` for all. Default
    /// none.
    pub allow_origin: Vec<String>,
    /// Maximum number of open connections; fewer if the process may open fewer files. A further
    /// connection closes the connection that has waited longest for a request. Not used if the
    /// router is mounted. Default 1024.
    pub connections: usize,
    /// Time within which the head of a request must be complete. Not used if the router is mounted.
    /// Default 10 s.
    pub head_ms: u64,
    /// Time within which the body of a request must be complete. Also used if the router is
    /// mounted. Default 10 s.
    pub body_ms: u64,
    /// Time after which a client that does not read its answer is disconnected. Not used if the
    /// router is mounted. Default 10 s.
    pub unread_ms: u64,
    /// Maximum time that a shutdown waits for complete requests. Not used if the router is mounted.
    /// Default 10 s.
    pub drain_ms: u64,
}

/// A secret that is not printed with the configuration.
///
/// ```
/// use glta_serve::{ServeConfig, Token};
///
/// let config = ServeConfig { token: Some(Token::new("secret")), ..ServeConfig::default() };
/// assert!(!format!("{config:?}").contains("secret"));
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// Creates a token from a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            model: PathBuf::new(),
            llm: None,
            listen: (Ipv4Addr::LOCALHOST, 8080).into(),
            max_k: 100,
            max_requests: 256,
            max_items: 1000,
            max_body: 256 * 1024,
            queue: 1024,
            batch: 32,
            batch_wait_ms: 2,
            timeout_ms: 10_000,
            watch_ms: 2000,
            journal: None,
            token: None,
            allow_origin: Vec::new(),
            connections: 1024,
            head_ms: 10_000,
            body_ms: 10_000,
            unread_ms: 10_000,
            drain_ms: 10_000,
        }
    }
}

/// Minimum of `watch_ms`. Shorter intervals would keep a core busy.
const MIN_WATCH_MS: u64 = 10;

impl ServeConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// Returns [`Error::Config`] for the first invalid field.
    pub fn validate(&self) -> Result<()> {
        let invalid = |field, problem: &str| Err(Error::Config { field, problem: problem.into() });
        if self.model.as_os_str().is_empty() {
            return invalid("model", "the folder of a fitted model is needed");
        }
        for (field, value) in [
            ("max_k", self.max_k),
            ("max_requests", self.max_requests),
            ("max_items", self.max_items),
            ("queue", self.queue),
            ("batch", self.batch),
            ("connections", self.connections),
        ] {
            if value == 0 {
                return invalid(field, "must be at least 1");
            }
        }
        if self.queue > Semaphore::MAX_PERMITS {
            return invalid("queue", &format!("must be at most {}", Semaphore::MAX_PERMITS));
        }
        for (field, value) in
            [("head_ms", self.head_ms), ("body_ms", self.body_ms), ("unread_ms", self.unread_ms)]
        {
            if value == 0 {
                return invalid(field, "must be at least 1");
            }
        }
        if self.token.as_ref().is_some_and(|token| token.0.trim().is_empty()) {
            return invalid("token", "is empty");
        }
        for origin in &self.allow_origin {
            let host = origin.split_once("://").map(|(_, host)| host);
            if origin != "*" && host.is_none_or(|host| host.is_empty() || host.contains('/')) {
                let problem = format!("`{origin}` is not an origin such as https://shop.example");
                return invalid("allow_origin", &problem);
            }
        }
        if self.watch_ms < MIN_WATCH_MS {
            return invalid("watch_ms", &format!("must be at least {MIN_WATCH_MS}"));
        }
        Ok(())
    }

    pub(crate) fn batch_wait(&self) -> Duration {
        Duration::from_millis(self.batch_wait_ms)
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    pub(crate) fn body_timeout(&self) -> Duration {
        Duration::from_millis(self.body_ms)
    }

    pub(crate) fn drain(&self) -> Duration {
        Duration::from_millis(self.drain_ms)
    }

    pub(crate) fn watch(&self) -> Duration {
        Duration::from_millis(self.watch_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ServeConfig {
        ServeConfig { model: "run".into(), ..ServeConfig::default() }
    }

    fn refused(config: &ServeConfig) -> &'static str {
        match config.validate() {
            Err(Error::Config { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_defaults_need_only_a_model() {
        config().validate().unwrap();
        assert_eq!(refused(&ServeConfig::default()), "model");
    }

    #[test]
    fn invalid_values_are_rejected_by_field() {
        assert_eq!(refused(&ServeConfig { max_k: 0, ..config() }), "max_k");
        assert_eq!(refused(&ServeConfig { max_requests: 0, ..config() }), "max_requests");
        assert_eq!(refused(&ServeConfig { max_items: 0, ..config() }), "max_items");
        assert_eq!(refused(&ServeConfig { queue: 0, ..config() }), "queue");
        assert_eq!(refused(&ServeConfig { queue: usize::MAX, ..config() }), "queue");
        assert_eq!(refused(&ServeConfig { batch: 0, ..config() }), "batch");
        assert_eq!(refused(&ServeConfig { watch_ms: 9, ..config() }), "watch_ms");
        assert_eq!(refused(&ServeConfig { connections: 0, ..config() }), "connections");
        assert_eq!(refused(&ServeConfig { head_ms: 0, ..config() }), "head_ms");
        let token = Some(Token::new(" "));
        assert_eq!(refused(&ServeConfig { token, ..config() }), "token");
        for origin in ["shop.example", "https://", "https://shop.example/"] {
            let allow_origin = vec![origin.to_owned()];
            assert_eq!(refused(&ServeConfig { allow_origin, ..config() }), "allow_origin");
        }
    }

    #[test]
    fn a_token_is_not_printed() {
        let config = ServeConfig { token: Some(Token::new("hunter2")), ..config() };
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn fields_left_out_have_their_defaults_and_unknown_ones_are_rejected() {
        let read: ServeConfig = serde_json::from_str(r#"{"model": "run", "batch": 4}"#).unwrap();
        assert_eq!(read, ServeConfig { batch: 4, ..config() });
        let error = serde_json::from_str::<ServeConfig>(r#"{"model": "run", "batchs": 4}"#);
        assert!(error.unwrap_err().to_string().contains("batchs"));
    }

    #[test]
    fn a_saved_configuration_reads_back_equal() {
        let config = ServeConfig { llm: Some("llm".into()), ..config() };
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<ServeConfig>(&text).unwrap(), config);
    }
}
