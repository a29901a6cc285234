//! Answers `POST /similar` and `POST /explain`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use glta_align::{Error, Similarity};

use crate::api_error::{ApiError, ApiResult};
use crate::bodies::{
    By, ErrorBody, ExplainAnswer, ExplainRequest, Part, SimilarAnswer, SimilarRequest,
};
use crate::body::Body;
use crate::counted::counted;
use crate::model::entry;
use crate::person::{item, length, options, who};
use crate::service::Service;
use glta_core::with_causes;

/// Returns similar items, by text or by common users.
#[utoipa::path(
    post,
    path = "/similar",
    tag = "recommend",
    request_body = SimilarRequest,
    responses(
        (status = 200, body = SimilarAnswer),
        (status = 400, description = "The request is invalid", body = ErrorBody),
        (status = 404, description = "An unknown item or field", body = ErrorBody),
        (status = 408, description = "The body did not arrive in time", body = ErrorBody),
        (status = 409, description = "The model has no text vectors", body = ErrorBody),
        (status = 413, description = "The body is too long", body = ErrorBody),
        (status = 503, description = "Too many requests are waiting", body = ErrorBody),
        (status = 504, description = "No answer within the timeout", body = ErrorBody),
    )
)]
pub(crate) async fn similar(State(service): State<Service>, body: Body) -> Response {
    let work = async {
        let request: SimilarRequest = body.parse()?;
        let state = service.clone();
        service.compute(move || similar_items(&state, &request)).await.map(Json)
    };
    counted(&service, "/similar", work).await
}

fn similar_items(service: &Service, request: &SimilarRequest) -> ApiResult<SimilarAnswer> {
    let k = length(service, request.k)?;
    let model = service.model();
    let recommender = model.read();
    let item = item(&recommender, &request.item)?;
    let among = request.among.as_deref();
    let options = options(service, &recommender, &request.exclude, among, &request.filter)?;
    let list = |by| {
        let how = match by {
            By::Text => Similarity::Text,
            By::People => Similarity::CoInteractions,
        };
        let list = recommender.similar_items(item, k, how, &options)?;
        let entries = list.iter().map(|best| entry(&recommender, best.item, Some(best.score)));
        Ok(SimilarAnswer { model: model.version, by, similar: entries.collect() })
    };
    let list = match request.by {
        Some(by) => list(by),
        None => match list(By::Text) {
            Err(Error::Unsupported(_)) => list(By::People),
            by_text => by_text,
        },
    };
    list.map_err(refused)
}

/// Returns the contributions to the score of an item, for a known user or for a list of items.
#[utoipa::path(
    post,
    path = "/explain",
    tag = "recommend",
    request_body = ExplainRequest,
    responses(
        (status = 200, body = ExplainAnswer),
        (status = 400, description = "The request is invalid", body = ErrorBody),
        (status = 404, description = "An unknown user, item or field", body = ErrorBody),
        (status = 408, description = "The body did not arrive in time", body = ErrorBody),
        (status = 409, description = "The model has no linear model", body = ErrorBody),
        (status = 413, description = "The body is too long", body = ErrorBody),
        (status = 503, description = "Too many requests are waiting", body = ErrorBody),
        (status = 504, description = "No answer within the timeout", body = ErrorBody),
    )
)]
pub(crate) async fn explain(State(service): State<Service>, body: Body) -> Response {
    let work = async {
        let request: ExplainRequest = body.parse()?;
        let state = service.clone();
        service.compute(move || explanation(&state, &request)).await.map(Json)
    };
    counted(&service, "/explain", work).await
}

fn explanation(service: &Service, request: &ExplainRequest) -> ApiResult<ExplainAnswer> {
    let k = length(service, request.k)?;
    let model = service.model();
    let recommender = model.read();
    let target = item(&recommender, &request.item)?;
    let person = who(service, &recommender, request.user.as_deref(), request.items.as_deref())?;
    let why = recommender.explain(person.query.person(), target).map_err(refused)?;
    let record = |item: u32| &recommender.items()[item as usize];
    let part = |&(item, part): &(u32, f32)| {
        let (id, title) = (&record(item).raw_id, &record(item).title);
        Part { item: id.clone(), title: title.clone(), part }
    };
    Ok(ExplainAnswer {
        model: model.version,
        item: request.item.clone(),
        title: record(target).title.clone(),
        score: why.score,
        popularity: why.popularity,
        others: why.items.iter().skip(k).map(|&(_, part)| part).sum(),
        items: why.items.iter().take(k).map(part).collect(),
        prompt_path_adds: recommender.has_prompt(),
    })
}

fn refused(error: Error) -> ApiError {
    match &error {
        Error::UnknownField { .. } => ApiError::not_found(error.to_string()),
        Error::Unsupported(_) => ApiError::new(StatusCode::CONFLICT, error.to_string()),
        error => ApiError::internal(with_causes(error)),
    }
}
