//! Bodies of requests and answers; `schema.json` describes them.

use serde::{Deserialize, Serialize};

/// Body of `POST /recommend`: exactly one of `user` and `items`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    pub(crate) user: Option<String>,
    pub(crate) items: Option<Vec<String>>,
    #[serde(default = "default_k")]
    pub(crate) k: usize,
}

fn default_k() -> usize {
    10
}

/// Body of `POST /recommend/batch`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Batch {
    pub(crate) requests: Vec<Request>,
}

/// Query of `GET /items` and `GET /users`.
#[derive(Debug, Deserialize)]
pub(crate) struct Find {
    #[serde(default)]
    pub(crate) q: String,
}

/// An item with its texts.
#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    pub(crate) item: String,
    pub(crate) title: String,
    pub(crate) text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) score: Option<f32>,
}

/// Recommendations for one request.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    /// Number of the model that made it.
    pub(crate) model: u64,
    /// The user's items, or the items of the request.
    pub(crate) history: Vec<Entry>,
    pub(crate) recommendations: Vec<Entry>,
}

/// Answers to a batch, in the order of its requests.
#[derive(Debug, Serialize)]
pub(crate) struct BatchAnswer {
    pub(crate) results: Vec<BatchResult>,
}

/// Answer or error of one request of a batch.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum BatchResult {
    Answer(Answer),
    Error { status: u16, error: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k_has_a_default_and_unknown_fields_are_refused() {
        let request: Request = serde_json::from_str(r#"{"user": "ann"}"#).unwrap();
        assert_eq!((request.user.as_deref(), request.k), (Some("ann"), 10));
        for body in [r#"{"user": "ann", "n": 3}"#, r#"{"user": 1}"#, r#"{"user": "a", "k": -1}"#] {
            assert!(serde_json::from_str::<Request>(body).is_err(), "{body}");
        }
    }

    #[test]
    fn an_entry_without_a_score_has_no_such_field() {
        let entry = |score| Entry { item: "a".into(), title: "A".into(), text: "A".into(), score };
        let json = |score| serde_json::to_string(&entry(score)).unwrap();
        assert_eq!(json(None), r#"{"item":"a","title":"A","text":"A"}"#);
        assert_eq!(json(Some(-0.5)), r#"{"item":"a","title":"A","text":"A","score":-0.5}"#);
    }
}
