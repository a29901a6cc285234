use serde::{Deserialize, Serialize};

use crate::Form;

/// The settings that [`LinearModel::fit`](crate::LinearModel::fit) chose on validation
/// data, saved with the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct LinearReport {
    /// How the weights were found.
    pub form: Form,
    /// Local systems that were not positive definite and had their diagonal raised.
    pub raised: usize,
    /// Whether each local system of a form with a rank took one Jacobi step in the place of its
    /// solution, because all pairs of co-occurring items take more memory than the dense form
    /// of `max_items` items.
    pub jacobi: bool,
    /// Why the dense form was not tried, if it was asked for.
    pub left_out: Option<String>,
    /// λ, the L2 regularisation.
    pub l2: f64,
    /// α, the weight of the texts in the Gram matrix.
    pub text: f64,
    /// β, the weight of the text neighbours.
    pub neighbours: f32,
    /// γ, the weight of the log degree.
    pub popularity: f32,
    /// Whether it was chosen for new items
    /// ([`LinearConfig::new_items`](crate::LinearConfig::new_items)): text neighbours
    /// then count `1 / (1 + degree)`, and an item that nobody has is as popular as the
    /// others are in the mean.
    pub new_items: bool,
    /// The scores are multiplied by this, so that their softmax is calibrated.
    pub temperature: f32,
    /// N@10 on the validation data, of at most 20,000 users; `None` without any.
    pub validation: Option<f64>,
    /// Each form's best N@10 on the validation data, in the order in which they were tried.
    pub tried: Vec<(Form, f64)>,
}
