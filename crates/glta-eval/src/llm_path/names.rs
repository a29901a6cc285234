//! The names of the rows of `run.llm_path`.

/// Name of the linear model, to which the other rows add a score.
pub(crate) const LINEAR: &str = "Linear";
/// The linear model with a score from hidden states after a prompt of titles.
pub(crate) const STATES: &str = "Linear + states";
pub(crate) const MEAN_VECTOR: &str = "Linear + mean vector";
pub(crate) const ONE_TEXT: &str = "Linear + one text";
pub(crate) const RANDOM_STATES: &str = "Linear + random states";
/// The linear model with the likelihood of titles as a score.
pub(crate) const LIKELIHOOD: &str = "Linear + likelihood";
pub(crate) const NEIGHBOURS: &str = "Linear + neighbours";
pub(crate) const RANDOM_LIKELIHOOD: &str = "Linear + random likelihood";

/// The rows with a score of the language model, each with its controls.
pub(crate) const FORMS: [(&str, &[&str]); 2] = [
    (STATES, &[MEAN_VECTOR, ONE_TEXT, RANDOM_STATES]),
    (LIKELIHOOD, &[NEIGHBOURS, RANDOM_LIKELIHOOD]),
];

/// All rows in order; the cheap ones come first.
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
