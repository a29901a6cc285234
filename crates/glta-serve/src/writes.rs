//! The paths that write: `POST /interactions`, `PUT /items/{id}`, `DELETE /users/{id}`.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use glta_data::Item;

use crate::api_error::{ApiError, ApiResult};
use crate::bodies::{ErrorBody, FieldValue, ItemBody, NewInteraction, PutAnswer, Stored, Time};
use crate::body::Body;
use crate::counted::counted;
use crate::journal::{Done, Event, Op};
use crate::refused::refused;
use crate::service::Service;

/// Maximum length of an id, in characters.
const LONGEST_ID: usize = 512;

type PathId = Result<Path<String>, PathRejection>;

/// Returns the id in a path, or an error if it is too long or empty.
fn path_id(id: PathId) -> ApiResult<String> {
    let Path(id) = id.map_err(|e| ApiError::bad_request(e.body_text()))?;
    check_id("the id", &id)?;
    Ok(id)
}

/// Allowed times, in seconds since 1970: from the first to the last day that RFC 3339 can
/// represent.
pub(crate) const TIMES: std::ops::RangeInclusive<f64> = -62_135_596_800.0..=253_402_300_799.0;

/// Adds interactions. They count in the next answer. Either all or none of them are stored.
#[utoipa::path(
    post,
    path = "/interactions",
    tag = "write",
    request_body = Vec<NewInteraction>,
    security(("token" = []), ()),
    responses(
        (status = 200, body = Stored),
        (status = 400, description = "Not interactions", body = ErrorBody),
        (status = 401, description = "Without the token", body = ErrorBody),
        (status = 403, description = "Not allowed from this address or origin", body = ErrorBody),
        (status = 408, description = "The body did not arrive in time", body = ErrorBody),
        (status = 409, description = "An id belongs to another interaction", body = ErrorBody),
        (status = 413, description = "The body is too long", body = ErrorBody),
        (status = 503, description = "Too many writes are waiting", body = ErrorBody),
    )
)]
pub(crate) async fn interactions(State(service): State<Service>, body: Body) -> Response {
    let work = async {
        let new: Vec<NewInteraction> = body.parse()?;
        let events = new.into_iter().map(event).collect::<ApiResult<Vec<Event>>>()?;
        let mut unknown_items: Vec<String> = Vec::new();
        {
            let model = service.model();
            let recommender = model.read();
            for Event { item, .. } in &events {
                if recommender.item(item).is_none() && !unknown_items.contains(item) {
                    unknown_items.push(item.clone());
                }
            }
        }
        let done = service.writer().write(Op::Interactions(events)).await;
        let Done { stored, repeated } = done.map_err(refused)?;
        Ok(Json(Stored { stored, repeated, unknown_items }))
    };
    counted(&service, "/interactions", work).await
}

fn event(new: NewInteraction) -> ApiResult<Event> {
    let NewInteraction { user, item, time, id } = new;
    check_id("user", &user)?;
    check_id("item", &item)?;
    id.as_deref().map_or(Ok(()), |id| check_id("id", id))?;
    let time = match time {
        None => None,
        Some(Time::Seconds(seconds)) if TIMES.contains(&seconds) => Some(seconds.floor() as i64),
        Some(Time::Seconds(other)) => {
            return Err(ApiError::bad_request(format!(
                "time: {other} is out of range for seconds since 1970; it may be in milliseconds"
            )));
        }
        Some(Time::Text(text)) => {
            let parsed: Result<jiff::Timestamp, _> = text.parse();
            let invalid = |e| ApiError::bad_request(format!("time: {text:?}: {e}"));
            Some(parsed.map_err(invalid)?.as_second())
        }
    };
    Ok(Event { user, item, time, id })
}

fn check_id(field: &str, id: &str) -> ApiResult<()> {
    let problem = match id {
        "" => "is empty",
        long if long.chars().nth(LONGEST_ID).is_some() => "is longer than 512 characters",
        _ => return Ok(()),
    };
    Err(ApiError::bad_request(format!("{field} {problem}")))
}

/// Adds an item to the catalogue, or changes its fields.
#[utoipa::path(
    put,
    path = "/items/{id}",
    tag = "write",
    params(("id" = String, Path, description = "Raw id of the item", min_length = 1,
        max_length = 512)),
    request_body = ItemBody,
    security(("token" = []), ()),
    responses(
        (status = 200, description = "The item was known and is changed", body = PutAnswer),
        (status = 201, description = "The item is new", body = PutAnswer),
        (status = 400, description = "Not fields of an item", body = ErrorBody),
        (status = 401, description = "Without the token", body = ErrorBody),
        (status = 403, description = "Not allowed from this address or origin", body = ErrorBody),
        (status = 408, description = "The body did not arrive in time", body = ErrorBody),
        (status = 409, description = "The model cannot add items", body = ErrorBody),
        (status = 413, description = "The body is too long", body = ErrorBody),
        (status = 503, description = "Too many writes are waiting", body = ErrorBody),
    )
)]
pub(crate) async fn item(State(service): State<Service>, id: PathId, body: Body) -> Response {
    let work = async {
        let id = path_id(id)?;
        let ItemBody(fields) = body.parse()?;
        let item = to_item(&id, fields)?;
        let created = service.put(item).await?;
        let status = if created { StatusCode::CREATED } else { StatusCode::OK };
        Ok((status, Json(PutAnswer { item: id, created })))
    };
    counted(&service, "/items/{id}", work).await
}

/// Creates an item from its fields, with the field names that the readers of item tables use.
fn to_item(id: &str, fields: std::collections::BTreeMap<String, FieldValue>) -> ApiResult<Item> {
    let mut item = Item::new(id);
    for (name, value) in fields {
        let values: Vec<String> = match value {
            FieldValue::Text(text) => vec![text],
            FieldValue::Texts(texts) => texts,
            FieldValue::Truth(truth) => vec![truth.to_string()],
            FieldValue::Number(number) => vec![number.to_string()],
        };
        if name == "raw_id" {
            return Err(ApiError::bad_request("the id is in the path"));
        }
        match name.to_lowercase().as_str() {
            "title" | "name" => item.title = values.join(", "),
            "category" | "categories" | "genre" | "genres" => item.genres = values,
            "description" | "text" => item.description = values.join(" "),
            "" => return Err(ApiError::bad_request("a field has no name")),
            _ => drop(item.other.insert(name, values.join(", "))),
        }
    }
    Ok(item)
}

/// Deletes a user. The user's writes are deleted, and the model's data about the user are no longer
/// used.
#[utoipa::path(
    delete,
    path = "/users/{id}",
    tag = "write",
    params(("id" = String, Path, description = "Raw id of the user", min_length = 1,
        max_length = 512)),
    security(("token" = []), ()),
    responses(
        (status = 204, description = "The user is deleted"),
        (status = 400, description = "Not an id", body = ErrorBody),
        (status = 401, description = "Without the token", body = ErrorBody),
        (status = 403, description = "Not allowed from this address or origin", body = ErrorBody),
        (status = 404, description = "Nobody of this id is known", body = ErrorBody),
        (status = 503, description = "Too many writes are waiting", body = ErrorBody),
    )
)]
pub(crate) async fn user(State(service): State<Service>, id: PathId) -> Response {
    let work = async {
        let id = path_id(id)?;
        let known = {
            let people = service.people();
            let model = service.model();
            people.items(&id).is_some()
                || (model.read().user(&id).is_some() && !people.is_forgotten(&id))
        };
        if !known {
            return Err(ApiError::not_found(format!("user {id:?} is not known")));
        }
        service.writer().write(Op::Forget(id)).await.map_err(refused)?;
        Ok(StatusCode::NO_CONTENT.into_response())
    };
    counted(&service, "/users/{id}", work).await
}
