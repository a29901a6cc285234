//! Tests the service through its router: every path, every kind of error, a new model, the
//! shutdown.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use glta_align::Recommender;
use glta_serve::{Error, ServeConfig, Server, Service, router};
use serde_json::{Value, json};
use tower::ServiceExt;

mod support;

fn config(run: &Path) -> ServeConfig {
    ServeConfig { model: run.to_owned(), ..ServeConfig::default() }
}

fn start(config: ServeConfig) -> Router {
    router(&Service::start(config, &support::CPU).unwrap())
}

async fn send(app: &Router, request: Request<Body>) -> Response<Body> {
    app.clone().oneshot(request).await.unwrap()
}

async fn text(response: Response<Body>) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn get(app: &Router, path: &str) -> (StatusCode, String) {
    let response = send(app, Request::get(path).body(Body::empty()).unwrap()).await;
    (response.status(), text(response).await)
}

async fn get_json(app: &Router, path: &str) -> Value {
    let (status, text) = get(app, path).await;
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

async fn post(app: &Router, path: &str, body: impl Into<Body>) -> (u16, Value) {
    let response = send(app, Request::post(path).body(body.into()).unwrap()).await;
    let status = response.status().as_u16();
    (status, serde_json::from_str(&text(response).await).unwrap())
}

async fn recommend(app: &Router, body: Value) -> (u16, Value) {
    post(app, "/recommend", body.to_string()).await
}

/// Returns a list in the form of answers. Scores are text, because JSON has the shortest form of an
/// `f32`.
fn shown(list: &[glta_align::Recommendation<'_>]) -> Vec<[String; 4]> {
    list.iter()
        .map(|r| {
            let score = serde_json::to_string(&r.score).unwrap();
            [r.record.raw_id.clone(), r.record.title.clone(), r.record.text.clone(), score]
        })
        .collect()
}

/// Returns the entries of an answer's list.
fn entries(list: &Value) -> Vec<[String; 4]> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    list.as_array()
        .unwrap()
        .iter()
        .map(|e| [text(&e["item"]), text(&e["title"]), text(&e["text"]), e["score"].to_string()])
        .collect()
}

#[tokio::test]
async fn answers_equal_those_of_the_recommender() {
    let run = support::run();
    let recommender = Recommender::open(run.path()).unwrap();
    let app = start(config(run.path()));

    let (status, answer) = recommend(&app, json!({"user": "user 3", "k": 2})).await;
    assert_eq!(status, 200, "{answer}");
    let user = recommender.user("user 3").unwrap();
    let expected = recommender.recommend(user, 2).unwrap();
    assert_eq!(entries(&answer["recommendations"]), shown(&expected));
    assert_eq!(answer["model"], 1);
    let history: Vec<&str> =
        answer["history"].as_array().unwrap().iter().map(|e| e["item"].as_str().unwrap()).collect();
    let items = recommender.items();
    let expected = recommender.history(user).unwrap();
    let expected: Vec<&str> = expected.iter().map(|&i| items[i as usize].raw_id.as_str()).collect();
    assert_eq!(history, expected);
    assert_eq!(answer["history"][0].get("score"), None);

    let dense: Vec<u32> = ["7", "8"]
        .iter()
        .map(|raw| items.iter().position(|i| i.raw_id == *raw).unwrap() as u32)
        .collect();
    let (status, answer) = recommend(&app, json!({"items": ["7", "8"], "k": 3})).await;
    assert_eq!(status, 200, "{answer}");
    let expected = recommender.recommend_for_items(&dense, 3).unwrap();
    assert_eq!(entries(&answer["recommendations"]), shown(&expected));
    assert_eq!(answer["history"][1]["title"], "Mug 8");
}

#[tokio::test]
async fn lists_contain_what_the_request_allows() {
    let run = support::run();
    let app = start(config(run.path()));
    let items = |answer: &Value, list: &str| -> Vec<String> {
        let list = answer[list].as_array().unwrap();
        list.iter().map(|e| e["item"].as_str().unwrap().to_owned()).collect()
    };
    let history = {
        let answer = recommend(&app, json!({"user": "user 0"})).await.1;
        items(&answer, "history")
    };
    for person in [json!({"user": "user 0"}), json!({"items": history})] {
        let ask = async |more: Value| {
            let mut request = person.clone();
            let fields = more.as_object().unwrap().clone();
            request.as_object_mut().unwrap().extend(fields);
            let (status, answer) = recommend(&app, request).await;
            assert_eq!(status, 200, "{answer}");
            items(&answer, "recommendations")
        };
        let all = ask(json!({"k": 12})).await;
        assert_eq!(all.len(), 12 - history.len());
        let fewer = ask(json!({"k": 12, "exclude": [all[0]]})).await;
        assert_eq!(fewer, all[1..]);
        let (first, last) = (all.first().unwrap(), all.last().unwrap());
        assert_eq!(ask(json!({"among": [last, first]})).await, [first.clone(), last.clone()]);
        assert_eq!(ask(json!({"filter": {"title": "Mug 7"}})).await, ["7"]);
        assert_eq!(ask(json!({"k": 12, "allow_known": true})).await.len(), 12);
    }
    // A user without items gets the most popular items.
    let (status, answer) = recommend(&app, json!({"items": []})).await;
    assert_eq!((status, answer["recommendations"].as_array().unwrap().len()), (200, 10));
}

#[tokio::test]
async fn similar_items_and_reasons() {
    let run = support::run_for_growth();
    let app = start(config(&run.path().join("model")));
    let (status, answer) = post(&app, "/similar", r#"{"item": "0", "k": 3}"#).await;
    assert_eq!(status, 200, "{answer}");
    let similar = answer["similar"].as_array().unwrap();
    assert_eq!((similar.len(), &answer["by"]), (3, &json!("text")));
    assert!(similar.iter().all(|e| e["title"].as_str().unwrap().starts_with("Tea")), "{answer}");
    assert!(similar[0]["score"].as_f64() >= similar[1]["score"].as_f64());
    let people = r#"{"item": "0", "by": "people", "exclude": ["1"]}"#;
    let (status, answer) = post(&app, "/similar", people).await;
    let similar = answer["similar"].as_array().unwrap();
    assert!(status == 200 && similar.iter().all(|e| e["item"] != "1"), "{answer}");
    assert_eq!(post(&app, "/similar", r#"{"item": "none"}"#).await.0, 404);
    assert_eq!(post(&app, "/similar", r#"{"item": "0", "k": 101}"#).await.0, 400);

    let (status, answer) =
        post(&app, "/explain", r#"{"user": "user 0", "item": "7", "k": 2}"#).await;
    assert_eq!(status, 200, "{answer}");
    let part = |value: &Value| value.as_f64().unwrap();
    let parts: f64 =
        answer["items"].as_array().unwrap().iter().map(|of_item| part(&of_item["part"])).sum();
    assert_eq!(answer["items"].as_array().unwrap().len(), 2);
    let sum = parts + part(&answer["others"]) + part(&answer["popularity"]);
    assert!((sum - part(&answer["score"])).abs() < 1e-4, "{answer}");
    assert_eq!(answer["title"], "Mug 7");
    assert_eq!(post(&app, "/explain", r#"{"item": "7"}"#).await.0, 400);
    assert_eq!(post(&app, "/explain", r#"{"user": "nobody", "item": "7"}"#).await.0, 404);
}

#[tokio::test]
async fn the_default_length_of_a_list_is_ten() {
    let run = support::run();
    let app = start(config(run.path()));
    let (_, answer) = recommend(&app, json!({"items": ["0"]})).await;
    assert_eq!(answer["recommendations"].as_array().unwrap().len(), 10);
}

#[tokio::test]
async fn a_batch_has_an_answer_or_an_error_for_each_request_in_order() {
    let run = support::run();
    let app = start(ServeConfig { max_requests: 4, ..config(run.path()) });
    let requests = [
        json!({"user": "user 0", "k": 2}),
        json!({"user": "nobody"}),
        json!({"items": ["3"], "k": 1}),
        json!({"user": "user 1", "items": ["3"]}),
    ];
    let batch = json!({ "requests": requests });
    let (status, answer) = post(&app, "/recommend/batch", batch.to_string()).await;
    assert_eq!(status, 200, "{answer}");
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.len(), 4);
    for n in [0, 2] {
        assert_eq!(results[n], recommend(&app, requests[n].clone()).await.1);
    }
    assert_eq!(results[1], json!({"status": 404, "error": "user \"nobody\" is not known"}));
    assert_eq!(results[3]["status"], 400);

    let five = json!({ "requests": vec![json!({"user": "user 0"}); 5] });
    let (status, answer) = post(&app, "/recommend/batch", five.to_string()).await;
    assert_eq!((status, answer), (400, json!({"error": "5 requests; at most 4 are allowed"})));
}

#[tokio::test]
async fn invalid_requests_are_rejected_with_the_problem() {
    let run = support::run();
    let limits = ServeConfig { max_k: 20, max_items: 2, max_body: 200, ..config(run.path()) };
    let app = start(limits);
    let long = format!(r#"{{"user": "{}"}}"#, "x".repeat(200));
    for (body, status, part) in [
        (r#"{"user": "nobody"}"#, 404, "nobody"),
        (r#"{"items": ["0", "no item"]}"#, 404, "no item"),
        (r#"{"items": ["0", "1", "2"]}"#, 400, "3 items; at most 2 are allowed"),
        (r#"{"user": "user 0", "exclude": ["no item"]}"#, 404, "no item"),
        (r#"{"user": "user 0", "among": ["no item"]}"#, 404, "no item"),
        (r#"{"user": "user 0", "filter": {"colour": "red"}}"#, 404, "colour"),
        (r#"{"user": "user 0", "k": 0}"#, 400, "1 to 20"),
        (r#"{"user": "user 0", "k": 21}"#, 400, "1 to 20"),
        (r#"{"user": "user 0", "k": -1}"#, 400, "schema.json"),
        (r#"{"user": "user 0", "k": 2.5}"#, 400, "2.5 is not an integer"),
        (r#"{"user": "user 0", "items": ["1"]}"#, 400, "exactly one"),
        ("{}", 400, "exactly one"),
        (r#"{"user": "user 0", "n": 3}"#, 400, "unknown field `n`"),
        ("\u{7f}", 400, "schema.json"),
        ("", 400, "schema.json"),
        (long.as_str(), 413, ""),
    ] {
        let (got, answer) = post(&app, "/recommend", body.to_owned()).await;
        let message = answer["error"].as_str().unwrap();
        assert_eq!(got, status, "{body}: {message}");
        assert!(message.contains(part), "{body}: {message}");
    }
    assert_eq!(recommend(&app, json!({"user": "user 0", "k": 5.0, "items": null})).await.0, 200);
    let (status, _) = get(&app, "/recommend").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn lists_page_health_schema_and_metrics() {
    let run = support::run();
    let app = start(config(run.path()));
    let teas = get_json(&app, "/items?q=tEA").await;
    assert_eq!(teas.as_array().unwrap().len(), 6);
    assert!(teas[0]["text"].as_str().unwrap().contains("Tea"));
    assert_eq!(get_json(&app, "/items").await.as_array().unwrap().len(), 12);
    assert_eq!(get_json(&app, "/users?q=user%2011").await, json!(["user 11"]));
    let health = json!({"status": "ok", "model": 1, "users": 12, "items": 12});
    assert_eq!(get_json(&app, "/health").await, health);
    assert_eq!(get_json(&app, "/users?q=USER%2011").await, json!(["user 11"]));
    assert_eq!(get_json(&app, "/items?q=5%20tea").await[0]["item"], "5");
    assert_eq!(get_json(&app, "/items?q=tea&limit=2").await.as_array().unwrap().len(), 2);
    assert_eq!(get(&app, "/items?limit=201").await.0, 400);
    assert_eq!(get(&app, "/items?n=1").await.0, 400);
    assert!(get(&app, "/").await.1.contains("id=\"best\""));
    let schema = get_json(&app, "/schema.json").await;
    assert!(schema["$defs"]["request"]["properties"]["items"].is_object());

    let api = get_json(&app, "/openapi.json").await;
    assert_eq!(api["openapi"], "3.1.0");
    assert!(api["paths"]["/items/{id}"]["put"]["responses"]["201"].is_object());
    let model = get_json(&app, "/model").await;
    assert_eq!((&model["users"], &model["items"]), (&json!(12), &json!(12)));
    assert_eq!(model["hash"].as_str().unwrap().len(), 64);
    assert!(model["settings"]["graph"].is_object() && model["validation"].is_object());

    recommend(&app, json!({"user": "user 0"})).await;
    recommend(&app, json!({"user": "nobody"})).await;
    let (_, metrics) = get(&app, "/metrics").await;
    for status in [200, 404] {
        let line = format!(r#"glta_requests_total{{path="/recommend",status="{status}"}} 1"#);
        assert!(metrics.contains(&line), "{metrics}");
    }
    assert!(metrics.contains("glta_waiting 0"));
}

/// The only request waits for others to form a batch, for longer than its timeout.
#[tokio::test]
async fn a_request_that_takes_too_long_is_answered_504() {
    let run = support::run();
    let slow = ServeConfig { batch_wait_ms: 60_000, timeout_ms: 20, ..config(run.path()) };
    let (status, answer) = recommend(&start(slow), json!({"user": "user 0"})).await;
    assert_eq!((status, answer), (504, json!({"error": "no answer within 20ms"})));
}

/// Requests that do not fit into the queue while the first one waits are rejected at once.
#[tokio::test]
async fn more_requests_than_the_queue_holds_are_answered_503() {
    let run = support::run();
    let app = start(ServeConfig {
        queue: 1,
        batch: 64,
        batch_wait_ms: 50,
        max_requests: 200,
        ..config(run.path())
    });
    let requests = json!({ "requests": vec![json!({"user": "user 0", "k": 1}); 200] });
    let (status, answer) = post(&app, "/recommend/batch", requests.to_string()).await;
    assert_eq!(status, 200, "{answer}");
    let results = answer["results"].as_array().unwrap();
    let full = json!({"status": 503, "error": "too many requests are waiting"});
    assert!(results.contains(&full));
    for result in results.iter().filter(|result| **result != full) {
        assert_eq!(result["recommendations"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_new_model_is_loaded_while_the_service_runs() {
    let run = support::run();
    let app = start(ServeConfig { watch_ms: 10, ..config(run.path()) });
    let before = recommend(&app, json!({"user": "user 0"})).await.1;
    let file = run.path().join("model.safetensors");
    let later = std::time::SystemTime::now() + Duration::from_secs(5);
    std::fs::File::options().append(true).open(file).unwrap().set_modified(later).unwrap();
    while get_json(&app, "/health").await["model"] != 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut after = recommend(&app, json!({"user": "user 0"})).await.1;
    assert_eq!(after["model"], 2);
    after["model"] = json!(1);
    assert_eq!(after, before);
    assert!(get(&app, "/metrics").await.1.contains("glta_reloads_total 1"));
}

#[tokio::test]
async fn the_router_can_be_nested_in_another() {
    let run = support::run();
    let service = Service::start(config(run.path()), &support::CPU).unwrap();
    let app = Router::new().nest("/shop", router(&service));
    assert_eq!(get(&app, "/shop").await.0, 200);
    let (status, _) = post(&app, "/shop/recommend", r#"{"user": "user 0"}"#).await;
    assert_eq!(status, 200);
    assert_eq!(get(&app, "/recommend").await.0, 404);
}

#[test]
fn invalid_models_are_rejected() {
    let run = support::run();
    let start = |config| Service::start(config, &support::CPU).err().unwrap();
    let error = start(ServeConfig { batch: 0, ..config(run.path()) });
    assert!(matches!(error, Error::Config { field: "batch", .. }));
    let error = start(config(&run.path().join("nowhere")));
    assert!(error.to_string().contains("nowhere"), "{error}");
    // Without its data the run cannot be opened, whatever its configuration is.
    std::fs::remove_file(run.path().join("items.jsonl")).unwrap();
    assert!(matches!(start(config(run.path())), Error::Align(_)));
}

#[test]
fn a_run_whose_answers_run_a_prompt_needs_its_language_model() {
    let run = support::run_with_language(true);
    let error = Service::start(config(run.path()), &support::CPU).err().unwrap();
    assert!(matches!(error, Error::NoLanguageModel { .. }), "{error}");
    assert!(error.to_string().contains("llm"));
    let with_it = ServeConfig { llm: Some(support::llm()), ..config(run.path()) };
    Service::start(with_it, &support::CPU).unwrap();
}

/// A request that has arrived at a real port before the shutdown is still answered.
#[tokio::test]
async fn the_server_shuts_down_in_order() {
    let run = support::run();
    // A request waits until another one completes its batch.
    let config = ServeConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        batch: 2,
        batch_wait_ms: 60_000,
        timeout_ms: 60_000,
        ..config(run.path())
    };
    let service = Service::start(config, &support::CPU).unwrap();
    let app = router(&service);
    let server = Server::bind(service).await.unwrap();
    let address = server.address();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async { stopped.await.unwrap_or_default() }));

    let client = tokio::task::spawn_blocking(move || ask_over_tcp(address));
    while !get(&app, "/metrics").await.1.contains("glta_waiting 1") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.send(()).unwrap();
    assert_eq!(recommend(&app, json!({"user": "user 1"})).await.0, 200);
    let answer = client.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("recommendations"));
    running.await.unwrap().unwrap();
    assert!(TcpStream::connect(address).is_err());
}

/// Returns the complete response to a request for `user 0`.
fn ask_over_tcp(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let body = r#"{"user": "user 0", "k": 1}"#;
    let head = "POST /recommend HTTP/1.1\r\nHost: x\r\nConnection: close";
    let length = body.len();
    write!(stream, "{head}\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test]
async fn an_address_in_use_is_rejected() {
    let run = support::run();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = ServeConfig { listen: taken.local_addr().unwrap(), ..config(run.path()) };
    let service = Service::start(config, &support::CPU).unwrap();
    let error = Server::bind(service).await.err().unwrap();
    assert!(matches!(error, Error::Listen { .. }), "{error}");
}
