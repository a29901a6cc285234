//! `POST /recommend` and `POST /recommend/batch`.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::api_error::{ApiError, ApiResult};
use crate::bodies::{Answer, Batch, BatchAnswer, BatchResult, Request};
use crate::metrics::RequestLabels;
use crate::model::Model;
use crate::queue::{Job, PushError, Query, Reply};
use crate::service::Service;
use glta_core::with_causes;

type Body = Result<Bytes, BytesRejection>;

/// Answers one request.
pub(crate) async fn one(State(service): State<Service>, body: Body) -> Response {
    let work = async {
        let request: Request = parse(body)?;
        let model = service.model();
        let pending = submit(&service, &model, request)?;
        Ok(Json(finish(&service, &model, pending).await?))
    };
    counted(&service, "/recommend", work).await
}

/// Answers many requests at once.
pub(crate) async fn many(State(service): State<Service>, body: Body) -> Response {
    let work = async { Ok(Json(BatchAnswer { results: batch(&service, parse(body)?).await? })) };
    counted(&service, "/recommend/batch", work).await
}

async fn batch(service: &Service, batch: Batch) -> ApiResult<Vec<BatchResult>> {
    let allowed = service.config().max_requests;
    if batch.requests.len() > allowed {
        let message = format!("{} requests; {allowed} are allowed", batch.requests.len());
        return Err(ApiError::bad_request(message));
    }
    let model = service.model();
    // All are in the queue before the first answer is awaited.
    let pending: Vec<_> =
        batch.requests.into_iter().map(|request| submit(service, &model, request)).collect();
    let mut results = Vec::with_capacity(pending.len());
    for pending in pending {
        let result = match pending {
            Ok(pending) => finish(service, &model, pending).await,
            Err(error) => Err(error),
        };
        results.push(match result {
            Ok(answer) => BatchResult::Answer(answer),
            Err(ApiError { status, message }) => {
                BatchResult::Error { status: status.as_u16(), error: message }
            }
        });
    }
    Ok(results)
}

/// Counts and times the response of `work`.
async fn counted<T: IntoResponse>(
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

fn parse<T: DeserializeOwned>(body: Body) -> ApiResult<T> {
    let body = body.map_err(|e| ApiError::new(e.status(), e.body_text()))?;
    serde_json::from_slice(&body)
        .map_err(|e| ApiError::bad_request(format!("not a request by /schema.json: {e}")))
}

/// A request that waits for the model.
struct Pending {
    history: Vec<u32>,
    reply: oneshot::Receiver<Reply>,
}

/// Checks a request and puts it into the queue.
fn submit(service: &Service, model: &Arc<Model>, request: Request) -> ApiResult<Pending> {
    let allowed = service.config().max_k;
    let k = request.k;
    if k == 0 || k > allowed {
        return Err(ApiError::bad_request(format!("k is {k}; 1 to {allowed} are allowed")));
    }
    let (query, history) = match (request.user, request.items) {
        (Some(user), None) => known_user(model, &user)?,
        (None, Some(items)) => by_items(model, &items, service.config().max_items)?,
        _ => return Err(ApiError::bad_request("exactly one of `user` and `items` is needed")),
    };
    let (sender, reply) = oneshot::channel();
    let job = Job { query, k, model: model.clone(), reply: sender };
    service.queue().push(job).map_err(|error| match error {
        PushError::Full => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests wait"),
        PushError::Closed => ApiError::internal("the model's thread has ended"),
    })?;
    Ok(Pending { history, reply })
}

fn known_user(model: &Model, raw_id: &str) -> ApiResult<(Query, Vec<u32>)> {
    let unknown = || ApiError::not_found(format!("user {raw_id:?} is not known"));
    let user = model.recommender.user(raw_id).ok_or_else(unknown)?;
    let history =
        model.recommender.history(user).map_err(|e| ApiError::internal(with_causes(&e)))?;
    Ok((Query::User(user), history))
}

fn by_items(model: &Model, raw_ids: &[String], allowed: usize) -> ApiResult<(Query, Vec<u32>)> {
    if raw_ids.is_empty() || raw_ids.len() > allowed {
        let message = format!("{} items; 1 to {allowed} are allowed", raw_ids.len());
        return Err(ApiError::bad_request(message));
    }
    let dense = |raw_id: &String| {
        let unknown = || ApiError::not_found(format!("item {raw_id:?} is not known"));
        model.recommender.item(raw_id).ok_or_else(unknown)
    };
    let items = raw_ids.iter().map(dense).collect::<ApiResult<Vec<u32>>>()?;
    Ok((Query::Items(items.clone()), items))
}

/// Waits for the model's reply, no longer than a request may take.
async fn finish(service: &Service, model: &Model, pending: Pending) -> ApiResult<Answer> {
    let timeout = service.config().timeout();
    let late = |_| ApiError::new(StatusCode::GATEWAY_TIMEOUT, format!("no answer in {timeout:?}"));
    let reply = tokio::time::timeout(timeout, pending.reply).await.map_err(late)?;
    let best = reply.map_err(ApiError::internal)?.map_err(ApiError::internal)?;
    Ok(Answer {
        model: model.version,
        history: pending.history.into_iter().map(|item| model.entry(item, None)).collect(),
        recommendations: best.into_iter().map(|(item, s)| model.entry(item, Some(s))).collect(),
    })
}
