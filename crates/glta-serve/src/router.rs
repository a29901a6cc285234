use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, post, put};

use crate::service::Service;
use crate::{guard, openapi, pages, recommend, similar, writes};

/// Returns the paths of a service as a router, to serve or to mount in another router.
pub fn router(service: &Service) -> Router {
    let guarded = Router::new()
        .route("/interactions", post(writes::interactions))
        .route("/items/{id}", put(writes::item))
        .route("/users/{id}", delete(writes::user))
        .route_layer(from_fn_with_state(service.clone(), guard::writes));
    Router::new()
        .route("/", get(pages::page))
        .route("/recommend", post(recommend::one))
        .route("/recommend/batch", post(recommend::many))
        .route("/similar", post(similar::similar))
        .route("/explain", post(similar::explain))
        .route("/items", get(pages::items))
        .route("/users", get(pages::users))
        .route("/model", get(pages::model))
        .route("/health", get(pages::health))
        .route("/metrics", get(pages::metrics))
        .route("/openapi.json", get(openapi::openapi))
        .route("/schema.json", get(openapi::schema))
        .merge(guarded)
        .layer(from_fn_with_state(service.clone(), guard::origins))
        .layer(DefaultBodyLimit::max(service.config().max_body))
        .with_state(service.clone())
}
