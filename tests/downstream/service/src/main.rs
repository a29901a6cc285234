//! A service with a trained model: `service --model DIR --llm DIR --listen ADDRESS`, then `GET
//! /recommend?user=ann&k=10`.
use std::{collections::HashMap, net::SocketAddr, path::PathBuf, sync::Arc};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::{Json, Router, routing::get};
use clap::Parser;
use glta::llm::Device;
use glta::prelude::*;
use serde_json::{Value, json};

#[derive(Parser)]
struct Args {
    #[arg(long)]
    model: PathBuf,
    #[arg(long)]
    llm: PathBuf,
    #[arg(long)]
    listen: SocketAddr,
}

type Refusal = (StatusCode, String);

async fn recommend(
    State(model): State<Arc<Recommender>>,
    Query(asked): Query<HashMap<String, String>>,
) -> Result<Json<Value>, Refusal> {
    let user = asked.get("user").and_then(|user| model.user(user));
    let user = user.ok_or((StatusCode::NOT_FOUND, "no such user".to_owned()))?;
    let k = asked.get("k").map_or(Ok(10), |k| k.parse());
    let k = k.map_err(|e| (StatusCode::BAD_REQUEST, format!("k: {e}")))?;
    let failed = |e: &dyn std::error::Error| (StatusCode::INTERNAL_SERVER_ERROR, e.to_string());
    // The computation must not block the threads of the server.
    let best = tokio::task::spawn_blocking(move || {
        let best = model.recommend(user, k)?;
        let line = |b: &Recommendation<'_>| json!({ "title": b.record.title, "score": b.score });
        glta::align::Result::Ok(best.iter().map(line).collect())
    });
    Ok(Json(best.await.map_err(|e| failed(&e))?.map_err(|e| failed(&e))?))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Args { model, llm, listen } = Args::parse();
    let language = LanguageModel::load(llm, &Config::of_run(&model)?.llm, &Device::Cpu)?;
    let model = Arc::new(Recommender::open_with(model, &language)?);
    let stop = Arc::new(tokio::sync::Notify::new());
    let asked = Arc::clone(&stop);
    ctrlc::set_handler(move || asked.notify_one())?;
    let router = Router::new().route("/recommend", get(recommend)).with_state(model);
    let listener = tokio::net::TcpListener::bind(listen).await?;
    println!("{}", listener.local_addr()?);
    axum::serve(listener, router)
        .with_graceful_shutdown(async move { stop.notified().await })
        .await?;
    Ok(())
}
