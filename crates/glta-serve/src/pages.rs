//! What is read with GET: the page and its lists, health, metrics and the schema.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use serde_json::{Value, json};

use crate::api_error::{ApiError, ApiResult};
use crate::bodies::{Entry, Find};
use crate::service::Service;

/// Most entries of a list on the page.
const LISTED: usize = 30;

pub(crate) async fn page() -> Html<&'static str> {
    Html(include_str!("page.html"))
}

/// Items whose text contains the query, in any case.
pub(crate) async fn items(
    State(service): State<Service>,
    Query(find): Query<Find>,
) -> Json<Vec<Entry>> {
    let model = service.model();
    let words = find.q.to_lowercase();
    let items = model.recommender.items().iter().zip(0u32..);
    let found = items.filter(|(item, _)| item.text.to_lowercase().contains(&words));
    Json(found.take(LISTED).map(|(_, id)| model.entry(id, None)).collect())
}

/// Users whose id contains the query.
pub(crate) async fn users(
    State(service): State<Service>,
    Query(find): Query<Find>,
) -> Json<Vec<String>> {
    let model = service.model();
    let found = model.recommender.users().iter().filter(|user| user.contains(&find.q));
    Json(found.take(LISTED).cloned().collect())
}

pub(crate) async fn health(State(service): State<Service>) -> ApiResult<Json<Value>> {
    if service.queue().is_closed() {
        return Err(ApiError::internal("the model's thread has ended"));
    }
    let model = service.model();
    let (users, items) = (model.recommender.users().len(), model.recommender.items().len());
    Ok(Json(json!({"status": "ok", "model": model.version, "users": users, "items": items})))
}

pub(crate) async fn metrics(State(service): State<Service>) -> ApiResult<Response> {
    let text = service.metrics().text().map_err(ApiError::internal)?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

pub(crate) async fn schema() -> Response {
    ([(header::CONTENT_TYPE, "application/schema+json")], include_str!("schema.json"))
        .into_response()
}
