//! Paths, bodies and answers; `schema.json` describes them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::measure::{Labels, Measures};
use crate::model::{Loaded, Shelf};
use crate::queue::{Job, NoPlace, Queue, Who};

pub(crate) struct App {
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) queue: Queue,
    pub(crate) measures: Arc<Measures>,
    pub(crate) limits: Limits,
}

pub(crate) struct Limits {
    pub(crate) k: usize,
    pub(crate) requests: usize,
    pub(crate) items: usize,
    pub(crate) body: usize,
    pub(crate) timeout: Duration,
}

/// For a user of the training data, or for someone who has some items.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    user: Option<String>,
    items: Option<Vec<String>>,
    #[serde(default = "ten")]
    k: usize,
}

fn ten() -> usize {
    10
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    requests: Vec<Request>,
}

/// An item with its texts.
#[derive(Debug, Serialize)]
struct Entry {
    item: String,
    title: String,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f32>,
}

#[derive(Debug, Serialize)]
struct Answer {
    model: u64,
    /// What the user has, or the items that were named.
    history: Vec<Entry>,
    recommendations: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Outcomes {
    results: Vec<Outcome>,
}

/// Of one request of a batch.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Outcome {
    Answer(Answer),
    Failure { status: u16, error: String },
}

/// A status and what was wrong.
struct Failure(StatusCode, String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.0, Json(json!({ "error": self.1 }))).into_response();
        if self.0 == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        response
    }
}

type Result<T> = std::result::Result<T, Failure>;

fn bad(message: impl Into<String>) -> Failure {
    Failure(StatusCode::BAD_REQUEST, message.into())
}

pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(|| async { Html(include_str!("page.html")) }))
        .route("/recommend", post(one))
        .route("/recommend/batch", post(many))
        .route("/items", get(items))
        .route("/users", get(users))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/schema.json", get(schema))
        .layer(DefaultBodyLimit::max(app.limits.body))
        .with_state(app)
}

async fn one(
    State(app): State<Arc<App>>,
    body: std::result::Result<Bytes, BytesRejection>,
) -> Response {
    counted(&app, "/recommend", async {
        let request: Request = parse(body)?;
        let model = app.shelf.current();
        Ok(Json(answer(&app, &model, request).await?))
    })
    .await
}

async fn many(
    State(app): State<Arc<App>>,
    body: std::result::Result<Bytes, BytesRejection>,
) -> Response {
    counted(&app, "/recommend/batch", async {
        let batch: Batch = parse(body)?;
        let most = app.limits.requests;
        if batch.requests.len() > most {
            return Err(bad(format!("{} requests; {most} are allowed", batch.requests.len())));
        }
        let model = app.shelf.current();
        // All are in the queue before the first is waited for.
        let running: Vec<_> =
            batch.requests.into_iter().map(|request| submit(&app, &model, request)).collect();
        let mut results = Vec::with_capacity(running.len());
        for submitted in running {
            let result = match submitted {
                Ok(submitted) => finish(&app, &model, submitted).await,
                Err(failure) => Err(failure),
            };
            results.push(match result {
                Ok(answer) => Outcome::Answer(answer),
                Err(Failure(status, error)) => Outcome::Failure { status: status.as_u16(), error },
            });
        }
        Ok(Json(Outcomes { results }))
    })
    .await
}

/// Counts and times what `work` answers.
async fn counted<T: IntoResponse>(
    app: &App,
    path: &'static str,
    work: impl Future<Output = Result<T>>,
) -> Response {
    let started = Instant::now();
    let response = work.await.into_response();
    let status = response.status().as_u16();
    app.measures.requests.get_or_create(&Labels { path, status }).inc();
    app.measures.seconds.observe(started.elapsed().as_secs_f64());
    response
}

fn parse<T: DeserializeOwned>(body: std::result::Result<Bytes, BytesRejection>) -> Result<T> {
    let body = body.map_err(|e| Failure(e.status(), e.body_text()))?;
    serde_json::from_slice(&body).map_err(|e| bad(format!("not a request by /schema.json: {e}")))
}

/// A request that waits for the model.
struct Submitted {
    history: Vec<u32>,
    reply: oneshot::Receiver<crate::queue::Reply>,
}

async fn answer(app: &App, model: &Arc<Loaded>, request: Request) -> Result<Answer> {
    let submitted = submit(app, model, request)?;
    finish(app, model, submitted).await
}

/// Checks a request and puts it into the queue.
fn submit(app: &App, model: &Arc<Loaded>, request: Request) -> Result<Submitted> {
    let limits = &app.limits;
    if request.k == 0 || request.k > limits.k {
        return Err(bad(format!("k is {}; 1 to {} are allowed", request.k, limits.k)));
    }
    let recommender = &model.recommender;
    let (who, history) = match (request.user, request.items) {
        (Some(user), None) => {
            let unknown = || Failure(StatusCode::NOT_FOUND, format!("user {user:?} is not known"));
            let user = recommender.user(&user).ok_or_else(unknown)?;
            let history = recommender.history(user).map_err(|e| internal(&e))?;
            (Who::User(user), history)
        }
        (None, Some(raw)) => {
            if raw.is_empty() || raw.len() > limits.items {
                return Err(bad(format!("{} items; 1 to {} are allowed", raw.len(), limits.items)));
            }
            let mut items = Vec::with_capacity(raw.len());
            for raw in &raw {
                let unknown =
                    || Failure(StatusCode::NOT_FOUND, format!("item {raw:?} is not known"));
                items.push(*model.items.get(raw).ok_or_else(unknown)?);
            }
            (Who::Items(items.clone()), items)
        }
        _ => return Err(bad("exactly one of `user` and `items` is needed")),
    };
    let (sender, reply) = oneshot::channel();
    let job = Job { who, k: request.k, model: model.clone(), reply: sender };
    app.queue.push(job).map_err(|problem| match problem {
        NoPlace::Full => Failure(StatusCode::SERVICE_UNAVAILABLE, "too many requests wait".into()),
        NoPlace::Ended => internal(&"the model's thread has ended"),
    })?;
    Ok(Submitted { history, reply })
}

async fn finish(app: &App, model: &Loaded, submitted: Submitted) -> Result<Answer> {
    let timeout = app.limits.timeout;
    let late = |_| Failure(StatusCode::GATEWAY_TIMEOUT, format!("no answer in {timeout:?}"));
    let reply = tokio::time::timeout(timeout, submitted.reply).await.map_err(late)?;
    let best = reply.map_err(|e| internal(&e))?.map_err(|e| internal(&e))?;
    Ok(Answer {
        model: model.version,
        history: submitted.history.into_iter().map(|item| entry(model, item, None)).collect(),
        recommendations: best.into_iter().map(|(item, s)| entry(model, item, Some(s))).collect(),
    })
}

fn internal(error: &impl std::fmt::Display) -> Failure {
    Failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

fn entry(model: &Loaded, item: u32, score: Option<f32>) -> Entry {
    let record = &model.recommender.items()[item as usize];
    Entry {
        item: record.raw_id.clone(),
        title: record.title.clone(),
        text: record.text.clone(),
        score,
    }
}

/// What the page offers to pick from.
#[derive(Debug, Deserialize)]
struct Find {
    #[serde(default)]
    q: String,
}

/// Entries of a list on the page.
const LISTED: usize = 30;

async fn items(State(app): State<Arc<App>>, Query(find): Query<Find>) -> Json<Vec<Entry>> {
    let model = app.shelf.current();
    let words = find.q.to_lowercase();
    let items = model.recommender.items().iter().zip(0u32..);
    let found = items.filter(|(item, _)| item.text.to_lowercase().contains(&words));
    Json(found.take(LISTED).map(|(_, id)| entry(&model, id, None)).collect())
}

async fn users(State(app): State<Arc<App>>, Query(find): Query<Find>) -> Json<Vec<String>> {
    let model = app.shelf.current();
    let found = model.recommender.users().iter().filter(|user| user.contains(&find.q));
    Json(found.take(LISTED).cloned().collect())
}

async fn health(State(app): State<Arc<App>>) -> Result<Json<Value>> {
    if app.queue.has_ended() {
        return Err(internal(&"the model's thread has ended"));
    }
    let model = app.shelf.current();
    let (users, items) = (model.recommender.users().len(), model.recommender.items().len());
    Ok(Json(json!({"status": "ok", "model": model.version, "users": users, "items": items})))
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    match app.measures.text() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => internal(&error).into_response(),
    }
}

async fn schema() -> Response {
    ([(header::CONTENT_TYPE, "application/schema+json")], include_str!("schema.json"))
        .into_response()
}
