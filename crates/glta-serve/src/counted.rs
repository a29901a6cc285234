//! Counts requests and measures their duration.

use std::time::Instant;

use axum::response::{IntoResponse, Response};

use crate::api_error::ApiResult;
use crate::metrics::RequestLabels;
use crate::service::Service;

/// Runs `work`, counts the response and measures the duration.
pub(crate) async fn counted<T: IntoResponse>(
    service: &Service,
    path: &'static str,
    work: impl Future<Output = ApiResult<T>>,
) -> Response {
    let started = Instant::now();
    let response = work.await.into_response();
    let status = response.status().as_u16();
    let metrics = service.metrics();
    metrics.requests.get_or_create(&RequestLabels { path, status }).inc();
    metrics.request_seconds.observe(started.elapsed().as_secs_f64());
    response
}
