use serde::{Deserialize, Serialize};

use crate::Form;

/// The settings that [`LinearModel::fit`](crate::LinearModel::fit) chose on validation data, saved
/// with the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct LinearReport {
    /// The form of the model.
    pub form: Form,
    /// Number of local systems whose diagonal was raised, because they were not positive definite.
    pub raised: usize,
    /// Whether the local systems with a low-rank part took one Jacobi step instead of an exact
    /// solution. This happens if all pairs of co-occurring items need more memory than the dense
    /// form with `max_items` items.
    pub jacobi: bool,
    /// The reason why the dense form was not tried although it was requested; `None` in all other
    /// cases.
    pub left_out: Option<String>,
    /// λ, the L2 regularisation.
    pub l2: f64,
    /// α, the weight of the text vectors in the Gram matrix.
    pub text: f64,
    /// β, the weight of the text neighbours.
    pub neighbours: f32,
    /// γ, the weight of `ln(1 + degree)`.
    pub popularity: f32,
    /// Whether the settings were chosen for new items
    /// ([`LinearConfig::new_items`](crate::LinearConfig::new_items)). Text neighbours then have the
    /// weight `1 / (1 + degree)`, and an item without interactions has the mean popularity of the
    /// others.
    pub new_items: bool,
    /// Factor by which the scores are multiplied, so that their softmax is calibrated.
    pub temperature: f32,
    /// N@10 over at most 20,000 users of the validation data; `None` without validation data.
    pub validation: Option<f64>,
    /// The best N@10 of each form on the validation data, in the order of the trials.
    pub tried: Vec<(Form, f64)>,
}
