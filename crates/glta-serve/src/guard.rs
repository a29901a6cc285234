//! Checks permission to write, and access from pages of other origins.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use crate::api_error::ApiError;
use crate::service::Service;

/// Accepts a write that contains the token. Without a configured token, accepts writes from this
/// machine, except those of pages of another origin.
pub(crate) async fn writes(
    State(service): State<Service>,
    request: Request,
    next: Next,
) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return next.run(request).await;
    }
    match refusal(&service, request.headers()) {
        Some(refused) => refused.into_response(),
        None => next.run(request).await,
    }
}

fn refusal(service: &Service, headers: &HeaderMap) -> Option<ApiError> {
    let config = service.config();
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let forbidden = |message: &str| Some(ApiError::new(StatusCode::FORBIDDEN, message));
    let (host, origin) = (text(header::HOST), text(header::ORIGIN));
    if let Some(origin) = origin
        && !allows(service, origin)
        && !same_origin(origin, host)
    {
        return forbidden("writes from this origin are not allowed (--allow-origin)");
    }
    let Some(token) = &config.token else {
        if !config.listen.ip().is_loopback() {
            return forbidden("writes need a token: start the service with --token");
        }
        // Another host name may resolve to this machine (DNS rebinding).
        if host.is_some_and(|host| !is_local(host)) {
            return forbidden("without a token, writes need the address of this machine");
        }
        return None;
    };
    let given = text(header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    // Compare hashes, so that the time of the comparison does not reveal the token.
    let hash = |token: &str| Sha256::digest(token.as_bytes());
    match given {
        Some(given) if hash(given) == hash(token.secret()) => None,
        Some(_) => Some(ApiError::new(StatusCode::UNAUTHORIZED, "the token is wrong")),
        None => Some(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "writes need the header `Authorization: Bearer TOKEN`",
        )),
    }
}

/// Returns whether an origin is that of the service, as the client names it in `host`.
fn same_origin(origin: &str, host: Option<&str>) -> bool {
    let named = origin.split_once("://").map(|(_, rest)| rest);
    named.is_some() && named == host
}

/// Returns whether the value of a `Host` header is an IP address or `localhost`.
fn is_local(host: &str) -> bool {
    let uri: Result<Uri, _> = format!("http://{host}/").parse();
    let Ok(uri) = uri else { return false };
    let Some(name) = uri.host() else { return false };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<std::net::IpAddr>().is_ok()
}

fn allows(service: &Service, origin: &str) -> bool {
    service.config().allow_origin.iter().any(|allowed| allowed == "*" || allowed == origin)
}

/// Adds the headers that tell browsers which pages of other origins may read answers, and answers
/// preflight requests.
pub(crate) async fn origins(
    State(service): State<Service>,
    request: Request,
    next: Next,
) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let allowed = origin.filter(|o| o.to_str().is_ok_and(|origin| allows(&service, origin)));
    let asked = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if asked && allowed.is_some() {
        let mut response = StatusCode::NO_CONTENT.into_response();
        for (name, value) in [
            (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, DELETE"),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type"),
            (header::ACCESS_CONTROL_MAX_AGE, "600"),
        ] {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    } else {
        next.run(request).await
    };
    if !service.config().allow_origin.is_empty() {
        response.headers_mut().append(header::VARY, HeaderValue::from_static("origin"));
    }
    if let Some(origin) = allowed {
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_local() {
        for host in ["127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:80", "10.0.0.7"] {
            assert!(is_local(host), "{host}");
        }
        for host in ["evil.example", "evil.example:80", "localhost.evil.example", "", "a b"] {
            assert!(!is_local(host), "{host}");
        }
        assert!(same_origin("http://127.0.0.1:8080", Some("127.0.0.1:8080")));
        assert!(!same_origin("http://evil.example", Some("127.0.0.1:8080")));
        assert!(!same_origin("null", None));
    }
}
