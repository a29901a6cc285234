//! Describes the paths in OpenAPI 3.1, and the bodies in JSON Schema.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::config::ServeConfig;
use crate::service::Service;
use crate::writes::TIMES;
use crate::{pages, recommend, similar, writes};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Recommendations",
        description = "Recommendations from a fitted model, for known users or for lists of items"
    ),
    paths(
        recommend::one,
        recommend::many,
        similar::similar,
        similar::explain,
        writes::interactions,
        writes::item,
        writes::user,
        pages::model,
        pages::items,
        pages::users,
        pages::health,
        pages::metrics,
    ),
    modifiers(&Writing)
)]
struct Api;

/// A modifier that adds the authorisation of writes to the description.
struct Writing;

impl Modify for Writing {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let token = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        api.components.get_or_insert_default().add_security_scheme("token", token);
    }
}

pub(crate) async fn openapi(State(service): State<Service>) -> Json<Value> {
    Json(described(service.config()))
}

/// Returns the description with the limits of a configuration, and with facts that are not in the
/// types.
fn described(config: &ServeConfig) -> Value {
    let mut api = serde_json::to_value(Api::openapi()).unwrap_or_default();
    let schemas = &mut api["components"]["schemas"];
    // An invalid request in a batch is an error of that request only.
    let mut in_batch = schemas["Request"].clone();
    in_batch["properties"]["k"]["minimum"] = 0.into();
    in_batch["properties"]["k"]["maximum"] = u32::MAX.into();
    schemas["BatchRequest"] = in_batch;
    let requests = &mut schemas["Batch"]["properties"]["requests"];
    requests["items"] = json!({ "$ref": "#/components/schemas/BatchRequest" });
    requests["maxItems"] = config.max_requests.into();
    for name in ["Request", "SimilarRequest", "ExplainRequest"] {
        let schema = &mut schemas[name];
        schema["properties"]["k"]["maximum"] = config.max_k.into();
        for list in ["items", "exclude", "among"] {
            if let Some(list) = schema["properties"].get_mut(list) {
                list["maxItems"] = config.max_items.into();
            }
        }
    }
    for name in ["Request", "ExplainRequest"] {
        schemas[name]["oneOf"] = json!([
            { "required": ["user"],
              "properties": { "user": { "type": "string" }, "items": { "type": "null" } } },
            { "required": ["items"],
              "properties": { "items": { "type": "array" }, "user": { "type": "null" } } },
        ]);
    }
    let seconds = &mut schemas["Time"]["oneOf"][0];
    seconds["minimum"] = (*TIMES.start()).into();
    seconds["maximum"] = (*TIMES.end()).into();
    schemas["Time"]["oneOf"][1]["format"] = "date-time".into();
    schemas["ItemBody"]["propertyNames"] = json!({ "minLength": 1, "not": { "enum": ["raw_id"] } });
    api
}

/// Returns the JSON Schema of the same bodies, each with its name in `$defs`.
pub(crate) async fn schema(State(service): State<Service>) -> Response {
    let api = described(service.config());
    let mut defs = Map::new();
    for (name, body) in api["components"]["schemas"].as_object().into_iter().flatten() {
        let mut chars = name.chars();
        let first = chars.next().map(|c| c.to_ascii_lowercase());
        defs.insert(first.into_iter().chain(chars).collect(), referring(body));
    }
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Requests and answers of the service",
        "$defs": defs,
    });
    ([(header::CONTENT_TYPE, "application/schema+json")], schema.to_string()).into_response()
}

/// Returns a copy of `schema` whose references point into `$defs`.
fn referring(schema: &Value) -> Value {
    match schema {
        Value::String(text) => match text.strip_prefix("#/components/schemas/") {
            Some(name) => {
                let (first, rest) = name.split_at(1);
                format!("#/$defs/{}{rest}", first.to_ascii_lowercase()).into()
            }
            None => schema.clone(),
        },
        Value::Array(all) => all.iter().map(referring).collect(),
        Value::Object(all) => {
            Value::Object(all.iter().map(|(k, v)| (k.clone(), referring(v))).collect())
        }
        other => other.clone(),
    }
}
