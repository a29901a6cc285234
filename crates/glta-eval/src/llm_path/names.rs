//! The names of the rows.

/// The base of all forms.
pub(crate) const LINEAR: &str = "Linear";
/// States of a prompt of titles.
pub(crate) const STATES: &str = "Linear + states";
pub(crate) const MEAN_VECTOR: &str = "Linear + mean vector";
pub(crate) const ONE_TEXT: &str = "Linear + one text";
pub(crate) const RANDOM_STATES: &str = "Linear + random states";
/// Likelihood of titles.
pub(crate) const LIKELIHOOD: &str = "Linear + likelihood";
pub(crate) const NEIGHBOURS: &str = "Linear + neighbours";
pub(crate) const RANDOM_LIKELIHOOD: &str = "Linear + random likelihood";

/// The forms, each with its controls.
pub(crate) const FORMS: [(&str, &[&str]); 2] = [
    (STATES, &[MEAN_VECTOR, ONE_TEXT, RANDOM_STATES]),
    (LIKELIHOOD, &[NEIGHBOURS, RANDOM_LIKELIHOOD]),
];

/// All rows in order; cheap ones first.
pub(crate) const ALL: [&str; 8] = [
    LINEAR,
    MEAN_VECTOR,
    ONE_TEXT,
    NEIGHBOURS,
    STATES,
    LIKELIHOOD,
    RANDOM_STATES,
    RANDOM_LIKELIHOOD,
];
