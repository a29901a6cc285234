//! The GET paths: the demo page, its lists, the model, health and metrics.

use std::collections::{BTreeMap, HashMap};

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use glta_align::{ItemRecord, Recommender};

use crate::api_error::{ApiError, ApiResult};
use crate::bodies::{Entry, ErrorBody, FieldCount, Find, Health, ModelAnswer, Writes};
use crate::counted::counted;
use crate::model::entry;
use crate::search::find_ids;
use crate::service::Service;

/// Maximum number of entries in a list.
const LISTED: usize = 200;
/// Maximum number of values of a field in the description. Fields with more values are left out.
const VALUES: usize = 100;

/// Name of the header with the total number of entries found. The list contains only the first
/// ones.
const TOTAL: &str = "x-total-count";

/// The content security policy: the page may not load anything from other sites.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                      connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'self'";

/// The demo page in one file.
const PAGE: &str = concat!(
    include_str!("page/head.html"),
    "<style>\n",
    include_str!("page/page.css"),
    "</style>\n",
    include_str!("page/body.html"),
    "<script>\n",
    include_str!("page/page.js"),
    "</script>\n</html>\n"
);

pub(crate) async fn page() -> Response {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, Html(PAGE)).into_response()
}

type Asked = Result<Query<Find>, QueryRejection>;

fn asked(find: Asked) -> ApiResult<Find> {
    let Query(find) = find.map_err(|e| ApiError::bad_request(e.body_text()))?;
    if find.limit == 0 || find.limit > LISTED {
        let limit = find.limit;
        return Err(ApiError::bad_request(format!("limit is {limit}; it must be 1 to {LISTED}")));
    }
    Ok(find)
}

/// Returns the items whose id, title, fields or text contain all words of the query, ignoring case.
#[utoipa::path(
    get,
    path = "/items",
    tag = "look",
    params(Find),
    responses(
        (status = 200, body = Vec<Entry>, headers(
            ("x-total-count" = usize, description = "Total number of entries"),
        )),
        (status = 400, description = "Not a query", body = ErrorBody),
        (status = 503, description = "Too many requests are waiting", body = ErrorBody),
        (status = 504, description = "No answer within the timeout", body = ErrorBody),
    )
)]
pub(crate) async fn items(State(service): State<Service>, find: Asked) -> Response {
    let work = async {
        let find = asked(find)?;
        let model = service.model();
        let found = service.compute(move || {
            let (found, all) = model.search().find(&find.q, find.limit);
            let recommender = model.read();
            let entries = found.into_iter().map(|item| entry(&recommender, item, None));
            Ok((entries.collect::<Vec<Entry>>(), all))
        });
        let (entries, all) = found.await?;
        Ok(([(TOTAL, all.to_string())], Json(entries)))
    };
    counted(&service, "/items", work).await
}

/// Returns the users whose id contains the query, ignoring case.
#[utoipa::path(
    get,
    path = "/users",
    tag = "look",
    params(Find),
    responses(
        (status = 200, body = Vec<String>),
        (status = 400, description = "Not a query", body = ErrorBody),
        (status = 503, description = "Too many requests are waiting", body = ErrorBody),
        (status = 504, description = "No answer within the timeout", body = ErrorBody),
    )
)]
pub(crate) async fn users(State(service): State<Service>, find: Asked) -> Response {
    let work = async {
        let find = asked(find)?;
        let state = service.clone();
        let found = service.compute(move || {
            let model = state.model();
            let (recommender, people) = (model.read(), state.people());
            let unknown = |id: &&str| recommender.user(id).is_none() || people.is_forgotten(id);
            let known = recommender.users().iter().map(String::as_str);
            let known = known.filter(|id| !id.is_empty() && !people.is_forgotten(id));
            let mut new: Vec<&str> = people.users().filter(unknown).collect();
            new.sort_unstable();
            Ok(find_ids(known.chain(new), &find.q, find.limit))
        });
        Ok(Json(found.await?))
    };
    counted(&service, "/users", work).await
}

/// Returns the description of the model: name, date, hash, settings, validation results and fields.
#[utoipa::path(
    get,
    path = "/model",
    tag = "look",
    responses(
        (status = 200, body = ModelAnswer),
        (status = 503, description = "Too many requests are waiting", body = ErrorBody),
        (status = 504, description = "No answer within the timeout", body = ErrorBody),
    )
)]
pub(crate) async fn model(State(service): State<Service>) -> Response {
    let work = async {
        let state = service.clone();
        Ok(Json(service.compute(move || Ok(about(&state))).await?))
    };
    counted(&service, "/model", work).await
}

fn about(service: &Service) -> ModelAnswer {
    let model = service.model();
    let (recommender, people) = (model.read(), service.people());
    ModelAnswer {
        model: model.version,
        name: model.about.name.clone(),
        date: model.about.date.clone(),
        hash: model.about.hash.clone(),
        users: recommender.users().len(),
        items: recommender.items().len(),
        settings: model.about.settings.clone(),
        validation: model.about.validation.clone(),
        fields: fields(recommender.items()),
        explains: explains(&recommender),
        writes: Writes {
            interactions: people.interactions(),
            items: service.items_put(),
            forgotten: people.forgotten(),
        },
    }
}

fn explains(recommender: &Recommender) -> bool {
    recommender.items().is_empty() || recommender.explain(glta_align::Person::Items(&[]), 0).is_ok()
}

/// Returns the fields with at most [`VALUES`] different values, each with its most frequent values
/// first.
fn fields(items: &[ItemRecord]) -> BTreeMap<String, Vec<FieldCount>> {
    let mut counts: BTreeMap<&str, HashMap<&str, usize>> = BTreeMap::new();
    for (name, values) in items.iter().flat_map(|item| &item.fields) {
        let of_field = counts.entry(name).or_default();
        values.iter().for_each(|value| *of_field.entry(value).or_default() += 1);
    }
    counts.retain(|_, values| values.len() <= VALUES);
    let list = |values: HashMap<&str, usize>| {
        let mut list: Vec<(&str, usize)> = values.into_iter().collect();
        list.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        let count = |(value, items): (&str, usize)| FieldCount { value: value.to_owned(), items };
        list.into_iter().map(count).collect()
    };
    counts.into_iter().map(|(name, values)| (name.to_owned(), list(values))).collect()
}

/// Returns the status of the service.
#[utoipa::path(
    get,
    path = "/health",
    tag = "look",
    responses((status = 200, body = Health))
)]
pub(crate) async fn health(State(service): State<Service>) -> ApiResult<Json<Health>> {
    if service.queue().is_closed() {
        return Err(ApiError::internal("the model's thread has ended"));
    }
    let model = service.model();
    let (users, items) = model.size();
    Ok(Json(Health { status: "ok", model: model.version, users, items }))
}

/// Returns counters and histograms for Prometheus, as OpenMetrics text.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "look",
    responses(
        (status = 200, body = String,
            content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8"),
    )
)]
pub(crate) async fn metrics(State(service): State<Service>) -> ApiResult<Response> {
    let text = service.metrics().text().map_err(ApiError::internal)?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
