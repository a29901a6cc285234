//! Bodies of requests and responses. `/openapi.json` and `/schema.json` describe them.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

/// The fields of an item, each with its values.
pub(crate) type Fields = BTreeMap<String, Vec<String>>;

/// Body of `POST /recommend`, with exactly one of `user` and `items`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    /// Raw id of the user.
    pub(crate) user: Option<String>,
    /// Raw ids of the items of a user, who need not be known. For an empty list, the most popular
    /// items are recommended.
    pub(crate) items: Option<Vec<String>>,
    /// Length of the list of recommendations.
    #[serde(default = "default_k", deserialize_with = "whole")]
    #[schema(default = 10, minimum = 1)]
    pub(crate) k: usize,
    /// Raw ids of items that are left out of the list.
    #[serde(default)]
    pub(crate) exclude: Vec<String>,
    /// Raw ids of the only items that can be in the list.
    pub(crate) among: Option<Vec<String>>,
    /// Field values that an item must have to be in the list, such as `{"category": "Tea"}`.
    #[serde(default)]
    pub(crate) filter: BTreeMap<String, String>,
    /// Whether the list may contain items that the user already has, for products that are bought
    /// again.
    #[serde(default)]
    pub(crate) allow_known: bool,
}

fn default_k() -> usize {
    10
}

/// Reads an integer, also in the form `10.0`.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let number = f64::deserialize(deserializer)?;
    if number < 0.0 || number.fract() != 0.0 || number > u32::MAX.into() {
        return Err(D::Error::custom(format!("{number} is not an integer from 0 to 4294967295")));
    }
    Ok(number as usize)
}

/// Body of `POST /recommend/batch`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Batch {
    pub(crate) requests: Vec<Request>,
}

/// Query parameters of `GET /items` and `GET /users`.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Find {
    /// Words to search for, ignoring case.
    #[serde(default)]
    pub(crate) q: String,
    /// Maximum number of entries. Default 30, at most 200.
    #[serde(default = "default_listed")]
    #[param(default = 30, minimum = 1, maximum = 200)]
    pub(crate) limit: usize,
}

fn default_listed() -> usize {
    30
}

/// An item with its texts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Entry {
    pub(crate) item: String,
    pub(crate) title: String,
    pub(crate) text: String,
    /// The other fields of the item.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) fields: Fields,
    /// Log-probability among all items; for similar items, the similarity.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) score: Option<f32>,
}

/// Answer to one request for recommendations.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Answer {
    /// Number of the model that answered, counted from the start of the service.
    pub(crate) model: u64,
    /// The user's items, or the items of the request.
    pub(crate) history: Vec<Entry>,
    pub(crate) recommendations: Vec<Entry>,
}

/// Answers to a batch, in the order of the requests.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BatchAnswer {
    pub(crate) results: Vec<BatchResult>,
}

/// Answer or error of one request of a batch.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum BatchResult {
    Answer(Answer),
    Error { status: u16, error: String },
}

/// The kind of similarity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum By {
    /// Similarity of the texts.
    Text,
    /// Similarity by common users.
    People,
}

/// Body of `POST /similar`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SimilarRequest {
    /// Raw id of the item whose similar items are requested.
    pub(crate) item: String,
    #[serde(default = "default_k", deserialize_with = "whole")]
    #[schema(default = 10, minimum = 1)]
    pub(crate) k: usize,
    /// Kind of similarity. The default is similarity of the texts if the model has text vectors,
    /// and similarity by common users otherwise.
    pub(crate) by: Option<By>,
    #[serde(default)]
    pub(crate) exclude: Vec<String>,
    pub(crate) among: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) filter: BTreeMap<String, String>,
}

/// Similar items, the most similar first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SimilarAnswer {
    pub(crate) model: u64,
    pub(crate) by: By,
    pub(crate) similar: Vec<Entry>,
}

/// Body of `POST /explain`, with exactly one of `user` and `items`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExplainRequest {
    pub(crate) user: Option<String>,
    pub(crate) items: Option<Vec<String>>,
    /// Raw id of the item whose score is explained.
    pub(crate) item: String,
    /// Maximum number of the user's items in the answer.
    #[serde(default = "default_k", deserialize_with = "whole")]
    #[schema(default = 10, minimum = 1)]
    pub(crate) k: usize,
}

/// The contributions to the score of an item in the linear model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExplainAnswer {
    pub(crate) model: u64,
    pub(crate) item: String,
    pub(crate) title: String,
    pub(crate) score: f32,
    /// Contribution of the item's popularity.
    pub(crate) popularity: f32,
    /// Total contribution of the user's items that are not listed.
    pub(crate) others: f32,
    /// The user's items, the largest contribution first.
    pub(crate) items: Vec<Part>,
    /// Whether the prompt path also contributes to the scores of lists.
    pub(crate) prompt_path_adds: bool,
}

/// One of the user's items and its contribution to a score.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Part {
    pub(crate) item: String,
    pub(crate) title: String,
    pub(crate) part: f32,
}

/// An interaction in the body of `POST /interactions`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewInteraction {
    /// Raw id of the user. An unknown user is added.
    #[schema(min_length = 1, max_length = 512)]
    pub(crate) user: String,
    /// Raw id of the item. An interaction with an item that is not in the catalogue takes effect
    /// when the item is added.
    #[schema(min_length = 1, max_length = 512)]
    pub(crate) item: String,
    /// Time in seconds since 1970, or a date and time in RFC 3339.
    pub(crate) time: Option<Time>,
    /// Id of the interaction, chosen by the sender. An interaction with a known id is not stored
    /// again.
    #[schema(min_length = 1, max_length = 512)]
    pub(crate) id: Option<String>,
}

/// A time as a number or as a text.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Time {
    /// Number of seconds since 1970.
    Seconds(f64),
    /// Date and time in RFC 3339, such as `2026-11-30T12:00:00Z`.
    Text(String),
}

/// The result of storing interactions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Stored {
    /// Number of new interactions.
    pub(crate) stored: usize,
    /// Number of interactions that were already stored.
    pub(crate) repeated: usize,
    /// Raw ids of items that are not in the catalogue. Their interactions take effect when the
    /// items are added.
    pub(crate) unknown_items: Vec<String>,
}

/// Body of `PUT /items/{id}`: the fields of the item. `title` (or `name`), `category` (or `genres`)
/// and `description` (or `text`) make its text. All other fields can be used in filters.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(transparent)]
pub(crate) struct ItemBody(pub(crate) BTreeMap<String, FieldValue>);

/// One or several values of a field.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum FieldValue {
    Text(String),
    Truth(bool),
    Number(f64),
    Texts(Vec<String>),
}

/// The result of adding or changing an item.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PutAnswer {
    pub(crate) item: String,
    /// Whether the item is new. The next fit learns the changed text of a known item.
    pub(crate) created: bool,
}

/// Description of the model that answers requests.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelAnswer {
    /// Number of the loaded model, counted from the start of the service.
    pub(crate) model: u64,
    /// Name of the model's folder.
    pub(crate) name: String,
    /// Time when the last file of the model was written, in RFC 3339.
    #[schema(format = DateTime)]
    pub(crate) date: String,
    /// SHA-256 of the names and contents of the model's files.
    pub(crate) hash: String,
    pub(crate) users: usize,
    pub(crate) items: usize,
    /// The complete configuration of the fit.
    pub(crate) settings: Value,
    /// Values that the fit measured on validation data.
    pub(crate) validation: Value,
    /// Fields by which lists can be filtered, with their most frequent values.
    pub(crate) fields: BTreeMap<String, Vec<FieldCount>>,
    /// Whether `/explain` is available.
    pub(crate) explains: bool,
    pub(crate) writes: Writes,
}

/// A value of a field, and the number of items that have it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FieldCount {
    pub(crate) value: String,
    pub(crate) items: usize,
}

/// Numbers of writes that the journal contains.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Writes {
    /// Number of pairs of a user and an item.
    pub(crate) interactions: usize,
    pub(crate) items: usize,
    /// Number of deleted users.
    pub(crate) forgotten: usize,
}

/// Answer of `GET /health`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    pub(crate) status: &'static str,
    /// Number of the loaded model, counted from the start of the service.
    pub(crate) model: u64,
    pub(crate) users: usize,
    pub(crate) items: usize,
}

/// Body of an error response.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    pub(crate) error: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k_has_a_default_and_unknown_fields_are_rejected() {
        let request: Request = serde_json::from_str(r#"{"user": "ann"}"#).unwrap();
        assert_eq!((request.user.as_deref(), request.k), (Some("ann"), 10));
        for body in [r#"{"user": "ann", "n": 3}"#, r#"{"user": 1}"#, r#"{"user": "a", "k": -1}"#] {
            assert!(serde_json::from_str::<Request>(body).is_err(), "{body}");
        }
    }

    #[test]
    fn an_entry_without_a_score_has_no_such_field() {
        let entry = |score| Entry {
            item: "a".into(),
            title: "A".into(),
            text: "A".into(),
            fields: Fields::new(),
            score,
        };
        let json = |score| serde_json::to_string(&entry(score)).unwrap();
        assert_eq!(json(None), r#"{"item":"a","title":"A","text":"A"}"#);
        assert_eq!(json(Some(-0.5)), r#"{"item":"a","title":"A","text":"A","score":-0.5}"#);
    }
}
