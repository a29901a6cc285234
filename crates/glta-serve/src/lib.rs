//! Recommendations over HTTP, from the folder of a fitted model.
//!
//! [`serve`] runs the whole service. To mount the same paths in your own axum application, start a
//! [`Service`] and use its [`router`]:
//!
//! ```no_run
//! use candle_core::Device;
//! use glta_serve::{ServeConfig, Service, router};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let config = ServeConfig { model: "runs/shop".into(), ..ServeConfig::default() };
//! let service = Service::start(config, &Device::Cpu)?;
//! let app = axum::Router::new().nest("/shop", router(&service));
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! axum::serve(listener, app).await?;
//! # Ok(())
//! # }
//! ```
//!
//! | path | answer |
//! | --- | --- |
//! | `GET /` | a demo page |
//! | `POST /recommend` | recommendations for a known user, or for a list of items |
//! | `POST /recommend/batch` | the same for many requests, each with its answer or error |
//! | `POST /similar` | similar items |
//! | `POST /explain` | how much each of a user's items contributes to an item's score |
//! | `POST /interactions` | stores interactions; they count in the next answer |
//! | `PUT /items/{id}` | adds an item, or changes its fields |
//! | `DELETE /users/{id}` | deletes a user |
//! | `GET /model` | name, date, hash, settings and validation results of the model |
//! | `GET /items?q=`, `GET /users?q=` | search |
//! | `GET /health` | status, number of the loaded model, users, items |
//! | `GET /metrics` | counters and histograms as OpenMetrics text |
//! | `GET /openapi.json` | a description of all paths in OpenAPI 3.1 |
//! | `GET /schema.json` | JSON schema of requests and answers |
//!
//! Writes are stored in a [`Journal`], an SQLite file, before they are acknowledged. They survive
//! the process and apply to every later model.
//!
//! One thread runs the model. It processes the requests of a bounded queue in batches; an answer
//! does not depend on its batch. Another thread watches the folder and loads a new model while the
//! old one answers.

mod about;
mod api_error;
mod bodies;
mod body;
mod catalogue;
mod config;
mod counted;
mod error;
mod guard;
mod journal;
mod load;
mod metrics;
mod model;
mod net;
mod openapi;
mod pages;
mod people;
mod person;
mod queue;
mod recommend;
mod refused;
mod reload;
mod router;
mod search;
mod server;
mod service;
mod similar;
mod store;
#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod support;
mod worker;
mod writes;

pub use config::{ServeConfig, Token};
pub use error::{Error, Result};
pub use journal::{Event, Journal};
pub use router::router;
pub use server::{Server, serve};
pub use service::Service;
