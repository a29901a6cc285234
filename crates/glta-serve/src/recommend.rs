//! Answers `POST /recommend` and `POST /recommend/batch`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use tokio::sync::oneshot;

use crate::api_error::{ApiError, ApiResult};
use crate::bodies::{Answer, Batch, BatchAnswer, BatchResult, Entry, ErrorBody, Request};
use crate::body::Body;
use crate::counted::counted;
use crate::model::{Model, entry};
use crate::person::{Who, length, options, who};
use crate::queue::{Failed, Job, PushError, Reply};
use crate::service::Service;

/// Recommends items for a known user, or for a list of items.
#[utoipa::path(
    post,
    path = "/recommend",
    tag = "recommend",
    request_body = Request,
    responses(
        (status = 200, body = Answer),
        (status = 400, description = "The request is invalid", body = ErrorBody),
        (status = 404, description = "An unknown user, item or field", body = ErrorBody),
        (status = 408, description = "The body did not arrive in time", body = ErrorBody),
        (status = 413, description = "The body is too long", body = ErrorBody),
        (status = 503, description = "Too many requests are waiting", body = ErrorBody),
        (status = 504, description = "No answer within the timeout", body = ErrorBody),
    )
)]
pub(crate) async fn one(State(service): State<Service>, body: Body) -> Response {
    let work = async {
        let request: Request = body.parse()?;
        let model = service.model();
        let pending = submit(&service, &model, request)?;
        Ok(Json(finish(&service, &model, pending).await?))
    };
    counted(&service, "/recommend", work).await
}

/// Recommends items for several requests, with one answer or error each, in order.
#[utoipa::path(
    post,
    path = "/recommend/batch",
    tag = "recommend",
    request_body = Batch,
    responses(
        (status = 200, body = BatchAnswer),
        (status = 400, description = "The request is invalid", body = ErrorBody),
        (status = 408, description = "The body did not arrive in time", body = ErrorBody),
        (status = 413, description = "The body is too long", body = ErrorBody),
    )
)]
pub(crate) async fn many(State(service): State<Service>, body: Body) -> Response {
    let work = async { Ok(Json(BatchAnswer { results: batch(&service, body.parse()?).await? })) };
    counted(&service, "/recommend/batch", work).await
}

async fn batch(service: &Service, batch: Batch) -> ApiResult<Vec<BatchResult>> {
    let allowed = service.config().max_requests;
    if batch.requests.len() > allowed {
        let message = format!("{} requests; at most {allowed} are allowed", batch.requests.len());
        return Err(ApiError::bad_request(message));
    }
    let model = service.model();
    // Queue all requests before the first answer is awaited.
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

/// A request that is waiting for the model.
struct Pending {
    history: Vec<Entry>,
    reply: oneshot::Receiver<Reply>,
}

/// Checks a request and adds a job to the queue.
fn submit(service: &Service, model: &Arc<Model>, request: Request) -> ApiResult<Pending> {
    let k = length(service, request.k)?;
    let recommender = model.read();
    let Who { query, history } =
        who(service, &recommender, request.user.as_deref(), request.items.as_deref())?;
    let among = request.among.as_deref();
    let mut options = options(service, &recommender, &request.exclude, among, &request.filter)?;
    options.allow_known = request.allow_known;
    drop(recommender);
    let (sender, reply) = oneshot::channel();
    let job = Job { query, k, options, model: model.clone(), reply: sender };
    service.queue().push(job).map_err(|error| match error {
        PushError::Full => {
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests are waiting")
        }
        PushError::Closed => ApiError::internal("the model's thread has ended"),
    })?;
    Ok(Pending { history, reply })
}

/// Waits for the reply of the model, until the timeout.
async fn finish(service: &Service, model: &Model, pending: Pending) -> ApiResult<Answer> {
    let timeout = service.config().timeout();
    let late =
        |_| ApiError::new(StatusCode::GATEWAY_TIMEOUT, format!("no answer within {timeout:?}"));
    let reply = tokio::time::timeout(timeout, pending.reply).await.map_err(late)?;
    let best = reply.map_err(ApiError::internal)?.map_err(|failed| match failed {
        Failed::Options(message) => ApiError::not_found(message),
        Failed::Model(message) => ApiError::internal(message),
    })?;
    let recommender = model.read();
    Ok(Answer {
        model: model.version,
        history: pending.history,
        recommendations: best
            .into_iter()
            .map(|(item, score)| entry(&recommender, item, Some(score)))
            .collect(),
    })
}
