//! Recommendations over HTTP from the folder of a finished run.
//!
//! [`serve`] is the whole service in one call. To give an application of your own the same
//! paths, start a [`Service`] and mount its [`router`] in an axum router:
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
//! | `GET /` | a page to try the service in a browser |
//! | `POST /recommend` | recommendations for one known user, or for a list of items |
//! | `POST /recommend/batch` | the same for many requests, each with its answer or error |
//! | `GET /items?q=`, `GET /users?q=` | the first 30 that contain `q` |
//! | `GET /health` | status, number of the loaded model, users, items |
//! | `GET /metrics` | counters and histograms as OpenMetrics text |
//! | `GET /schema.json` | JSON schema of requests and answers |
//!
//! One thread owns the model's work. It takes the requests that wait in a bounded queue
//! through the model in batches; an answer does not depend on the rest of its batch. Another
//! thread watches the run's folder and replaces the model when a new one appears there, while
//! the old one keeps answering.

mod api_error;
mod bodies;
mod config;
mod error;
mod load;
mod metrics;
mod model;
mod pages;
mod queue;
mod recommend;
mod reload;
mod router;
mod server;
mod service;
#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod support;
mod worker;

pub use config::ServeConfig;
pub use error::{Error, Result};
pub use router::router;
pub use server::{Server, serve};
pub use service::Service;
