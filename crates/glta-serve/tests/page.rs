//! Tests the page in a browser: `page/steps.html` loads the page in a frame, clicks, and checks.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::process::Command;
use std::time::Duration;

use axum::response::Html;
use axum::routing::get;
use glta_serve::{ServeConfig, Service, router};

mod support;

/// Returns the command of Chromium, which differs between systems.
fn browser() -> Option<&'static str> {
    let there = |name: &&str| Command::new(name).arg("--version").output().is_ok();
    ["chromium", "chromium-browser", "google-chrome"].into_iter().find(there)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_works_in_a_browser() {
    let Some(browser) = browser() else {
        eprintln!("left out: the page is not tried, there is no Chromium here");
        return;
    };
    let run = support::run_for_growth();
    let config = ServeConfig { model: run.path().join("model"), ..ServeConfig::default() };
    let service = Service::start(config, &support::CPU).unwrap();
    let steps = Html(include_str!("page/steps.html"));
    let app = router(&service).route("/steps.html", get(move || async move { steps }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move { axum::serve(listener, app).await });

    let profile = tempfile::tempdir().unwrap();
    let arguments = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1400,900",
        "--virtual-time-budget=120000",
        "--dump-dom",
    ];
    let url = format!("http://{address}/steps.html");
    let folder = format!("--user-data-dir={}", profile.path().display());
    let output = tokio::task::spawn_blocking(move || {
        Command::new(browser).args(arguments).arg(folder).arg(url).output().unwrap()
    });
    let output = tokio::time::timeout(Duration::from_secs(300), output).await.unwrap().unwrap();
    serving.abort();
    let page = String::from_utf8_lossy(&output.stdout);
    let said = page.split("<pre id=\"said\">").nth(1).and_then(|rest| rest.split("</pre>").next());
    let said = said
        .unwrap_or_else(|| panic!("no page: {page}\n{}", String::from_utf8_lossy(&output.stderr)));
    assert!(said.ends_with("the end") && !said.contains("FAILED"), "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("ok ")).count(), 9, "{said}");
}
