use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};

/// Locations and network settings of the hub and its cache.
#[derive(Clone, PartialEq, Eq)]
pub struct HubOptions {
    /// Base of all URLs. Default `https://huggingface.co`.
    pub endpoint: String,
    /// Folder that contains the `models--owner--name` folders.
    pub cache: PathBuf,
    /// Access token for private and gated repositories, which only the endpoint receives. Default
    /// none.
    pub token: Option<String>,
    /// Whether to use the cache only, without network access. Default `false`.
    pub offline: bool,
    /// Maximum time to wait for a response or for its next bytes. Default 30 seconds.
    pub timeout: Duration,
}

impl std::fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubOptions")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("token", &self.token.as_ref().map(|_| "secret"))
            .field("offline", &self.offline)
            .field("timeout", &self.timeout)
            .finish()
    }
}

impl HubOptions {
    /// Creates options for the official hub with the cache folder `cache`, without a token and with
    /// a timeout of 30 seconds.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: "https://huggingface.co".into(),
            cache: cache.into(),
            token: None,
            offline: false,
            timeout: Duration::from_secs(30),
        }
    }

    /// Reads the environment variables as `huggingface_hub` 2.4.0 does:
    ///
    /// * cache: `HF_HUB_CACHE`, else `HUGGINGFACE_HUB_CACHE`, else `hub` in `HF_HOME`, which is
    ///   `~/.cache/huggingface` (or in `XDG_CACHE_HOME`) unless set;
    /// * endpoint: `HF_ENDPOINT`;
    /// * token: `HF_TOKEN`, else `HUGGING_FACE_HUB_TOKEN`, else the file `HF_TOKEN_PATH`, else
    ///   `token` in `HF_HOME`; no token if `HF_HUB_DISABLE_IMPLICIT_TOKEN` is true;
    /// * offline: `HF_HUB_OFFLINE`, or `TRANSFORMERS_OFFLINE` if the first is unset or empty;
    /// * timeout in seconds: `HF_HUB_DOWNLOAD_TIMEOUT`.
    ///
    /// The values 1, on, yes and true mean true. In the names of folders and files, `~` and `$NAME`
    /// are replaced by the home folder and the variable. `docs/gptq.md` compares the variables one
    /// by one.
    ///
    /// # Errors
    /// Returns an error for a variable with an invalid value, or if there is no home folder.
    pub fn from_env() -> Result<Self> {
        Self::from_lookup(|name| std::env::var_os(name))
    }

    /// Reads the variables like [`from_env`](Self::from_env), from a function instead of the
    /// process environment.
    ///
    /// # Errors
    /// Returns the errors of [`from_env`](Self::from_env).
    pub fn from_lookup(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let set = |name: &str| variable(name).filter(|v| !v.is_empty());
        let home_folder = || set("HOME").or_else(|| set("USERPROFILE"));
        let path = |name: &str| {
            set(name).map(|value| PathBuf::from(expanded(value, home_folder(), &variable)))
        };
        let text = |name: &str| match set(name).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(value.trim().to_owned()).filter(|v| !v.is_empty())),
            Some(Err(_)) => Err(Error::Input(format!("{name} is not UTF-8"))),
        };
        let is_true = |name: &str| -> Result<bool> {
            let value = text(name)?.map(|value| value.to_lowercase());
            Ok(value.is_some_and(|v| ["1", "on", "yes", "true"].contains(&&*v)))
        };
        let home =
            match path("HF_HOME").or_else(|| Some(path("XDG_CACHE_HOME")?.join("huggingface"))) {
                Some(home) => Some(home),
                None => {
                    home_folder().map(|home| PathBuf::from(home).join(".cache").join("huggingface"))
                }
            };
        let in_home = |name: &str| home.as_ref().map(|home| home.join(name));
        let cache = path("HF_HUB_CACHE")
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| in_home("hub"))
            .ok_or_else(|| {
                Error::Input("no home folder for the hub's cache; set HF_HOME to a folder".into())
            })?;
        let mut options = Self::new(cache);
        if let Some(endpoint) = text("HF_ENDPOINT")? {
            if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
                return Err(Error::Input(format!(
                    "HF_ENDPOINT {endpoint:?} is not an http(s) URL"
                )));
            }
            options.endpoint = endpoint;
        }
        let given = match text("HF_TOKEN")? {
            Some(token) => Some(token),
            None => text("HUGGING_FACE_HUB_TOKEN")?,
        };
        // For `huggingface_hub` every token is implicit, also one in a variable.
        if !is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN")? {
            let file = path("HF_TOKEN_PATH").or_else(|| in_home("token"));
            options.token = given.or_else(|| {
                let token = std::fs::read_to_string(file?).ok()?;
                Some(token.trim().to_owned()).filter(|token| !token.is_empty())
            });
        }
        if options.token.as_ref().is_some_and(|t| !t.chars().all(|c| c.is_ascii_graphic())) {
            return Err(Error::Input("HF_TOKEN, or the token file, does not hold a token".into()));
        }
        options.offline = match text("HF_HUB_OFFLINE")? {
            Some(_) => is_true("HF_HUB_OFFLINE")?,
            None => is_true("TRANSFORMERS_OFFLINE")?,
        };
        if let Some(seconds) = text("HF_HUB_DOWNLOAD_TIMEOUT")? {
            options.timeout = seconds
                .parse()
                .ok()
                .filter(|s| *s > 0.0)
                .and_then(|s| Duration::try_from_secs_f64(s).ok())
                .ok_or_else(|| {
                    Error::Input(format!(
                        "HF_HUB_DOWNLOAD_TIMEOUT {seconds:?} is not a number of seconds above 0"
                    ))
                })?;
        }
        Ok(options)
    }
}

/// Replaces a leading `~`, `$NAME` and `${NAME}` in a path. Unset variables are not replaced.
fn expanded(
    value: OsString,
    home: Option<OsString>,
    variable: &impl Fn(&str) -> Option<OsString>,
) -> OsString {
    // Paths that are not UTF-8 are not changed.
    let Some(text) = value.to_str() else { return value };
    let mut out = OsString::new();
    let mut rest = text;
    if let (Some(home), Some(tail)) = (home, text.strip_prefix('~'))
        && (tail.is_empty() || tail.starts_with(['/', std::path::MAIN_SEPARATOR]))
    {
        out.push(home);
        rest = tail;
    }
    while let Some((before, after)) = rest.split_once('$') {
        out.push(before);
        let named = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((name, tail)) => Some((name, tail)),
            None => {
                let end = after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
                Some(after.split_at(end.unwrap_or(after.len())))
            }
        };
        let named = named.filter(|(name, _)| !name.is_empty());
        match named.and_then(|(name, tail)| Some((variable(name)?, tail))) {
            Some((value, tail)) => {
                out.push(value);
                rest = tail;
            }
            None => {
                out.push("$");
                rest = after;
            }
        }
    }
    out.push(rest);
    out
}
