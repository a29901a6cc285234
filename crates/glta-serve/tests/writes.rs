//! Tests that writes count at once, survive the service and every model, and can be deleted.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request};
use glta_serve::{Error, Journal, ServeConfig, Service, Token, router};
use serde_json::{Value, json};
use tower::ServiceExt;

mod support;

fn config(model: &Path) -> ServeConfig {
    ServeConfig { model: model.to_owned(), watch_ms: 10, ..ServeConfig::default() }
}

fn start(config: ServeConfig) -> Router {
    router(&Service::start(config, &support::CPU).unwrap())
}

/// Returns status and body; `Null` for an empty body.
async fn send(app: &Router, request: Request<Body>) -> (u16, Value) {
    let response = app.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
    (status, body)
}

async fn call(app: &Router, method: Method, path: &str, body: Value) -> (u16, Value) {
    let request = Request::builder().method(method).uri(path);
    send(app, request.body(body.to_string().into()).unwrap()).await
}

async fn get(app: &Router, path: &str) -> Value {
    call(app, Method::GET, path, Value::Null).await.1
}

async fn post(app: &Router, path: &str, body: Value) -> (u16, Value) {
    call(app, Method::POST, path, body).await
}

fn ids(answer: &Value, list: &str) -> Vec<String> {
    let list = answer[list].as_array().unwrap_or_else(|| panic!("{answer}"));
    list.iter().map(|entry| entry["item"].as_str().unwrap().to_owned()).collect()
}

/// Returns the history and the recommendations of a user.
async fn lists(app: &Router, user: &str) -> (Vec<String>, Vec<String>) {
    let (status, answer) = post(app, "/recommend", json!({"user": user, "k": 12})).await;
    assert_eq!(status, 200, "{answer}");
    (ids(&answer, "history"), ids(&answer, "recommendations"))
}

fn model(run: &tempfile::TempDir) -> PathBuf {
    run.path().join("model")
}

#[tokio::test]
async fn interactions_count_in_the_next_answer_and_after_a_restart() {
    let run = support::run_for_growth();
    let app = start(config(&model(&run)));
    let (history, best) = lists(&app, "user 0").await;
    let bought = best[0].clone();
    let wanted = json!([
        {"user": "user 0", "item": bought, "time": "2026-11-30T12:00:00Z", "id": "order 1"},
        {"user": "somebody new", "item": "7", "time": 1_700_000_000},
        {"user": "somebody new", "item": "not there yet"},
    ]);
    let (status, stored) = post(&app, "/interactions", wanted.clone()).await;
    assert_eq!(status, 200, "{stored}");
    let expected = json!({"stored": 3, "repeated": 0, "unknown_items": ["not there yet"]});
    assert_eq!(stored, expected);
    // A repetition changes nothing.
    let (_, stored) = post(&app, "/interactions", wanted).await;
    assert_eq!((&stored["stored"], &stored["repeated"]), (&json!(0), &json!(3)));

    let mut app = app;
    for again in [false, true] {
        if again {
            app = restart(app, &run).await;
        }
        let (now, best) = lists(&app, "user 0").await;
        assert_eq!(now, [&history[..], std::slice::from_ref(&bought)].concat());
        assert!(!best.contains(&bought));
        // The result equals that of a user with all of these items.
        let by_items = post(&app, "/recommend", json!({"items": now, "k": 12})).await.1;
        assert_eq!(best, ids(&by_items, "recommendations"));
        let (new, best) = lists(&app, "somebody new").await;
        assert_eq!(new, ["7", "not there yet"]);
        assert!(best[0].parse::<u32>().unwrap() >= 6, "{best:?}");
        assert_eq!(get(&app, "/users?q=somebody").await, json!(["somebody new"]));
        let why = json!({"user": "somebody new", "item": best[0]});
        assert_eq!(post(&app, "/explain", why).await.1["items"][0]["item"], "7");
        assert_eq!(get(&app, "/model").await["writes"]["interactions"], 3);
    }
    let journal = Journal::read(run.path().join("model.journal.sqlite")).unwrap();
    let events = journal.interactions().unwrap();
    assert_eq!(events.len(), 3);
    assert_eq!((events[0].time, events[0].id.as_deref()), (Some(1_796_040_000), Some("order 1")));
    assert_eq!(events[1].time, Some(1_700_000_000));
}

/// Starts a new service for the same folder, after the previous one has released its journal.
async fn restart(app: Router, run: &tempfile::TempDir) -> Router {
    drop(app);
    loop {
        match Service::start(config(&model(run)), &support::CPU) {
            Ok(service) => return router(&service),
            Err(Error::Journal { problem, .. }) if problem.contains("another service") => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn invalid_interactions_are_rejected_and_nothing_is_stored() {
    let run = support::run_for_growth();
    let app = start(config(&model(&run)));
    let good = json!({"user": "user 0", "item": "7"});
    for (bad, part) in [
        (json!({"user": "", "item": "7"}), "user is empty"),
        (json!({"user": "a", "item": "x".repeat(513)}), "longer than 512"),
        (json!({"user": "a", "item": "7", "time": 1_700_000_000_000i64}), "milliseconds"),
        (json!({"user": "a", "item": "7", "time": "yesterday"}), "yesterday"),
        (json!({"user": "a", "item": 7}), "schema.json"),
        (json!({"user": "a", "item": "7", "rating": 5}), "rating"),
    ] {
        let (status, answer) = post(&app, "/interactions", json!([good, bad])).await;
        let message = answer["error"].as_str().unwrap();
        assert!(status == 400 && message.contains(part), "{bad}: {answer}");
    }
    assert_eq!(get(&app, "/model").await["writes"]["interactions"], 0);
    // If the id of an interaction belongs to another one, the whole request is rejected.
    let named = |item: &str| json!({"user": "user 0", "item": item, "id": "order 7"});
    assert_eq!(post(&app, "/interactions", json!([named("7")])).await.0, 200);
    let other = json!([{"user": "user 2", "item": "9"}, named("8")]);
    let (status, answer) = post(&app, "/interactions", other).await;
    assert!(status == 409 && answer["error"].as_str().unwrap().contains("order 7"), "{answer}");
    assert_eq!(get(&app, "/model").await["writes"]["interactions"], 1);
}

#[tokio::test]
async fn new_items_can_be_recommended_at_once_and_known_ones_are_replaced() {
    let run = support::run_for_growth();
    let app = start(config(&model(&run)));
    let put = async |app: &Router, id: &str, fields: Value| {
        call(app, Method::PUT, &format!("/items/{id}"), fields).await
    };
    let text = "Green leaf, steamed, spring harvest, hand picked";
    let tea = json!({
        "title": "Tea with bergamot", "category": "Tea", "price": 7.5, "description": text,
    });
    let (status, answer) = put(&app, "new%20tea", tea.clone()).await;
    assert_eq!((status, answer), (201, json!({"item": "new tea", "created": true})));
    assert_eq!(put(&app, "new%20tea", tea).await.0, 200);
    assert_eq!(put(&app, "3", json!({"title": "Jasmine"})).await.0, 200);
    assert_eq!(put(&app, "3", json!({"title": {"en": "Jasmine"}})).await.0, 400);
    let bought = json!([{"user": "eve", "item": "new tea"}]);
    assert_eq!(post(&app, "/interactions", bought).await.0, 200);

    let mut app = app;
    for again in [false, true] {
        if again {
            app = restart(app, &run).await;
        }
        assert_eq!(get(&app, "/health").await["items"], 13);
        let found = get(&app, "/items?q=bergamot%20tea").await;
        assert_eq!(found[0]["fields"], json!({"genres": ["Tea"], "price": ["7.5"]}));
        assert_eq!(get(&app, "/items?q=jasmine").await[0]["item"], "3");
        let filter = json!({"items": ["0"], "k": 3, "filter": {"category": "Tea"}});
        assert_eq!(ids(&post(&app, "/recommend", filter).await.1, "recommendations"), ["new tea"]);
        // A user whose only item is the new one gets items similar to it.
        let (history, best) = lists(&app, "eve").await;
        assert_eq!(history, ["new tea"]);
        assert!(best[0].parse::<u32>().unwrap() < 6, "{best:?}");
        let like = post(&app, "/similar", json!({"item": "new tea", "k": 2})).await.1;
        let like = ids(&like, "similar");
        assert!(like.iter().all(|id| id.parse::<u32>().unwrap() < 6), "{like:?}");
    }
}

#[tokio::test]
async fn a_missing_encoder_of_a_new_item_is_named() {
    let run = support::run_for_growth_by_language();
    let app = start(config(&model(&run)));
    let tea = || json!({"title": "Tea with bergamot"});
    let (status, answer) = call(&app, Method::PUT, "/items/new", tea()).await;
    let message = answer["error"].as_str().unwrap();
    assert!(status == 409 && message.contains("--llm"), "{answer}");
    assert!(message.contains("language model"), "{answer}");
    assert_eq!(get(&app, "/health").await["items"], 12);
    assert!(!run.path().join("model.journal.sqlite").exists());

    let with_it = ServeConfig { llm: Some(support::llm()), ..config(&model(&run)) };
    let app = start(with_it);
    assert_eq!(call(&app, Method::PUT, "/items/new", tea()).await.0, 201);
    assert_eq!(get(&app, "/health").await["items"], 13);

    // The same weights with another settings file are another checkpoint.
    let other = tempfile::tempdir().unwrap();
    support::copy(&support::llm(), other.path());
    std::fs::write(other.path().join("generation_config.json"), "{}").unwrap();
    let run = support::run_for_growth_by_language();
    let llm = Some(other.path().to_owned());
    let app = start(ServeConfig { llm, ..config(&model(&run)) });
    let (status, answer) = call(&app, Method::PUT, "/items/new", tea()).await;
    let message = answer["error"].as_str().unwrap();
    assert!(status == 409 && message.contains("the run uses the checkpoint"), "{answer}");
}

#[tokio::test]
async fn a_model_that_cannot_grow_rejects_items_and_accepts_interactions() {
    let run = support::run();
    let journal = tempfile::tempdir().unwrap();
    let journal = Some(journal.path().join("writes"));
    let app = start(ServeConfig { journal, ..config(run.path()) });
    let (status, answer) = call(&app, Method::PUT, "/items/new", json!({"title": "Tea"})).await;
    assert_eq!(status, 409, "{answer}");
    let bought = json!([{"user": "eve", "item": "7"}]);
    assert_eq!(post(&app, "/interactions", bought).await.0, 200);
    assert_eq!(lists(&app, "eve").await.0, ["7"]);
}

#[tokio::test]
async fn a_deleted_user_is_in_no_answer_and_no_file_of_the_service() {
    let run = support::run_for_growth();
    let name = "user 0";
    let app = start(config(&model(&run)));
    let written = json!([{"user": name, "item": "7", "id": "order of user 0"},
                         {"user": "visitor-4711", "item": "7"}]);
    assert_eq!(post(&app, "/interactions", written).await.0, 200);
    let forget =
        async |app: &Router, path: &str| call(app, Method::DELETE, path, Value::Null).await.0;
    assert_eq!(forget(&app, "/users/nobody").await, 404);
    assert_eq!(forget(&app, "/users/user%200").await, 204);
    assert_eq!(forget(&app, "/users/visitor-4711").await, 204);
    assert_eq!(forget(&app, "/users/user%200").await, 404);
    for entry in std::fs::read_dir(run.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            let text = String::from_utf8_lossy(&bytes);
            assert!(!text.contains("user 0") && !text.contains("visitor-4711"), "{path:?}");
        }
    }
    let mut app = app;
    for again in [false, true] {
        if again {
            app = restart(app, &run).await;
        }
        assert_eq!(post(&app, "/recommend", json!({"user": name})).await.0, 404);
        assert_eq!(post(&app, "/explain", json!({"user": name, "item": "7"})).await.0, 404);
        assert_eq!(get(&app, "/users?q=user%200").await, json!([]));
        assert_eq!(get(&app, "/model").await["writes"]["forgotten"], 2);
    }
    let journal = Journal::read(run.path().join("model.journal.sqlite")).unwrap();
    assert!(journal.is_forgotten(name) && !journal.is_forgotten("user 1"));
    assert!(journal.interactions().unwrap().is_empty());
    // A user who returns is a new user.
    let bought = json!([{"user": name, "item": "8"}]);
    assert_eq!(post(&app, "/interactions", bought).await.0, 200);
    assert_eq!(lists(&app, name).await.0, ["8"]);
}

/// A link is changed to a folder with another model while interactions and items are written.
#[cfg(unix)]
#[tokio::test]
async fn writes_survive_the_swap_to_a_new_model() {
    let run = support::run_for_growth();
    let link = run.path().join("current");
    let turn = |to: &str| {
        let new = run.path().join("turned");
        std::os::unix::fs::symlink(run.path().join(to), &new).unwrap();
        std::fs::rename(new, &link).unwrap();
    };
    support::copy(&model(&run), &run.path().join("tuesday"));
    turn("model");
    let app = start(config(&link));
    for (n, to) in ["tuesday", "model", "tuesday"].into_iter().enumerate() {
        let path = format!("/items/new-{n}");
        let tea = json!({"title": format!("Tea number {n}")});
        assert_eq!(call(&app, Method::PUT, &path, tea).await.0, 201);
        let bought = json!([{"user": "eve", "item": format!("new-{n}")}]);
        assert_eq!(post(&app, "/interactions", bought).await.0, 200);
        turn(to);
        while get(&app, "/health").await["model"] != n + 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(get(&app, "/model").await["name"], to);
        assert_eq!(get(&app, "/health").await["items"], 13 + n);
        let history: Vec<String> = (0..=n).map(|n| format!("new-{n}")).collect();
        assert_eq!(lists(&app, "eve").await.0, history);
    }
    assert!(run.path().join("current.journal.sqlite").exists());
}

#[test]
fn a_journal_has_one_writer_and_is_outside_of_models() {
    let run = support::run_for_growth();
    let journal = run.path().join("journal");
    let with = |journal: PathBuf| {
        let config = ServeConfig { journal: Some(journal), ..config(&model(&run)) };
        Service::start(config, &support::CPU)
    };
    let refused = |result: glta_serve::Result<Service>| match result.err() {
        Some(Error::Journal { problem, .. }) => problem,
        other => panic!("{other:?}"),
    };
    let first = with(journal.clone()).unwrap();
    assert!(refused(with(journal)).contains("another service"));
    drop(first);
    assert!(refused(with(model(&run).join("journal"))).contains("inside the model's folder"));
    let text = run.path().join("notes.txt");
    std::fs::write(&text, "These are notes, which nobody may write over.").unwrap();
    assert!(refused(with(text)).contains("not a database"));
    let missing = run.path().join("no/folder/journal");
    assert!(with(missing).is_err());
}

#[tokio::test]
async fn writes_need_the_token_or_this_machine() {
    let run = support::run_for_growth();
    let write = |headers: &[(&str, &str)]| {
        let mut request = Request::post("/interactions");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(json!([{"user": "eve", "item": "7"}]).to_string().into()).unwrap()
    };
    let here = start(config(&model(&run)));
    for (headers, status) in [
        (&[("host", "127.0.0.1:8080")][..], 200),
        (&[("host", "127.0.0.1:8080"), ("origin", "http://127.0.0.1:8080")], 200),
        (&[("host", "127.0.0.1:8080"), ("origin", "https://evil.example")], 403),
        (&[("host", "evil.example")], 403),
    ] {
        assert_eq!(send(&here, write(headers)).await.0, status, "{headers:?}");
    }
    let listen = "0.0.0.0:0".parse().unwrap();
    let second = support::run_for_growth();
    let open = start(ServeConfig { listen, ..config(&model(&second)) });
    let (status, answer) = send(&open, write(&[])).await;
    assert!(status == 403 && answer["error"].as_str().unwrap().contains("--token"), "{answer}");
    assert_eq!(post(&open, "/recommend", json!({"user": "user 0"})).await.0, 200);

    let third = support::run_for_growth();
    let guarded = start(ServeConfig {
        listen,
        token: Some(Token::new("s3cret")),
        allow_origin: vec!["https://shop.example".into()],
        ..config(&model(&third))
    });
    for (headers, status) in [
        (&[][..], 401),
        (&[("authorization", "Bearer wrong")], 401),
        (&[("authorization", "s3cret")], 401),
        (&[("authorization", "bearer s3cret"), ("host", "api.example")], 200),
        (&[("authorization", "Bearer s3cret"), ("origin", "https://shop.example")], 200),
        (&[("authorization", "Bearer s3cret"), ("origin", "https://evil.example")], 403),
    ] {
        assert_eq!(send(&guarded, write(headers)).await.0, status, "{headers:?}");
    }
    assert_eq!(call(&guarded, Method::DELETE, "/users/eve", Value::Null).await.0, 401);
    assert_eq!(call(&guarded, Method::PUT, "/items/x", json!({"title": "X"})).await.0, 401);

    // This is the preflight request of a browser.
    let ask = |origin: &str| {
        Request::options("/interactions")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .body(Body::empty())
            .unwrap()
    };
    let allowed = guarded.clone().oneshot(ask("https://shop.example")).await.unwrap();
    assert_eq!(allowed.status(), 204);
    let headers = allowed.headers();
    assert_eq!(headers["access-control-allow-origin"], "https://shop.example");
    assert!(headers["access-control-allow-headers"].to_str().unwrap().contains("authorization"));
    let other = guarded.clone().oneshot(ask("https://evil.example")).await.unwrap();
    assert!(!other.headers().contains_key("access-control-allow-origin"));
}
