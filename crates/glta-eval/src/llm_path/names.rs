//! The names of the rows of `run.llm_path`.

/// Name of the linear model, to which the other rows add a score.
pub(crate) const LINEAR: &str = "Linear";
/// Name of the row that adds a score from hidden states after a prompt of titles.
pub(crate) const STATES: &str = "Linear + states";
pub(crate) const MEAN_VECTOR: &str = "Linear + mean vector";
pub(crate) const ONE_TEXT: &str = "Linear + one text";
pub(crate) const RANDOM_STATES: &str = "Linear + random states";
/// Name of the row that adds the likelihood of titles as a score.
pub(crate) const LIKELIHOOD: &str = "Linear + likelihood";
pub(crate) const NEIGHBOURS: &str = "Linear + neighbours";
pub(crate) const RANDOM_LIKELIHOOD: &str = "Linear + random likelihood";

/// Names of the rows that add a score of the language model, each with the names of its controls.
pub(crate) const FORMS: [(&str, &[&str]); 2] = [
    (STATES, &[MEAN_VECTOR, ONE_TEXT, RANDOM_STATES]),
    (LIKELIHOOD, &[NEIGHBOURS, RANDOM_LIKELIHOOD]),
];

/// Names of all rows in order; the cheap rows come first.
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
