//! Reads the bodies of requests.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;

use crate::api_error::{ApiError, ApiResult};
use crate::net::Connection;
use crate::service::Service;

/// The complete body of a request, or the error that occurred while it was read.
pub(crate) struct Body(ApiResult<Bytes>);

impl FromRequest<Service> for Body {
    type Rejection = std::convert::Infallible;

    async fn from_request(request: Request, service: &Service) -> Result<Self, Self::Rejection> {
        let connection = request.extensions().get::<Arc<Connection>>().cloned();
        let limit = service.config().body_timeout();
        let read = tokio::time::timeout(limit, Bytes::from_request(request, &())).await;
        let body = match read {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(refused)) => Err(ApiError::new(refused.status(), refused.body_text())),
            Err(_) => {
                if let Some(connection) = &connection {
                    connection.cut_off("the body of the request did not arrive in time");
                }
                let message = format!("the body did not arrive within {limit:?}");
                Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, message))
            }
        };
        if let Some(connection) = connection {
            connection.begin_work();
        }
        Ok(Self(body))
    }
}

impl Body {
    pub(crate) fn parse<T: DeserializeOwned>(self) -> ApiResult<T> {
        serde_json::from_slice(&self.0?).map_err(|e| {
            ApiError::bad_request(format!("not a valid request (see /schema.json): {e}"))
        })
    }
}
