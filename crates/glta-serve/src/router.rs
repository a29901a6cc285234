use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};

use crate::service::Service;
use crate::{pages, recommend};

/// The paths of a service, as a router to serve or to mount in another one.
pub fn router(service: &Service) -> Router {
    Router::new()
        .route("/", get(pages::page))
        .route("/recommend", post(recommend::one))
        .route("/recommend/batch", post(recommend::many))
        .route("/items", get(pages::items))
        .route("/users", get(pages::users))
        .route("/health", get(pages::health))
        .route("/metrics", get(pages::metrics))
        .route("/schema.json", get(pages::schema))
        .layer(DefaultBodyLimit::max(service.config().max_body))
        .with_state(service.clone())
}
