use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Settings of [`LinearModel`](crate::LinearModel). Of each list, the value with the
/// highest N@10 on validation data is taken. Without validation data, `l2` and `text`
/// take the middle value of their lists, and neighbours and popularity are left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinearConfig {
    /// λ, the L2 regularisation.
    pub l2: Vec<f64>,
    /// α, the weight of the texts in the Gram matrix; 0 leaves them out.
    pub text: Vec<f64>,
    /// Weights of the text neighbours that are tried beside 0.
    pub neighbours: Vec<f64>,
    /// Weights of `ln(1 + degree)` that are tried beside 0.
    pub popularity: Vec<f64>,
    /// Share of the items that are new while the values above are chosen: left out of
    /// the fit, and searched for among the validation items. Text neighbours then count
    /// `1 / (1 + degree)`, and an item that nobody has is as popular as the others
    /// in the mean. Use 0, the default, for a catalogue that does not grow; new items
    /// rank low then.
    pub new_items: f64,
    /// Refuse more items than this: the matrix takes `4 · items²` bytes, and as much again
    /// with text vectors; `16 · items²` while it is fitted, `20 · items²` with text vectors.
    pub max_items: usize,
}

impl Default for LinearConfig {
    fn default() -> Self {
        Self {
            l2: vec![10.0, 30.0, 100.0, 300.0],
            text: vec![1.0, 3.0, 10.0, 30.0],
            neighbours: vec![0.003, 0.01, 0.03, 0.1, 0.3],
            popularity: vec![0.001, 0.003, 0.01],
            new_items: 0.0,
            max_items: 20_000,
        }
    }
}

impl LinearConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Config`] for an empty list of `l2` or `text`, or values out of range.
    pub fn validate(&self) -> Result<()> {
        for (field, list) in [("l2", &self.l2), ("text", &self.text)] {
            if list.is_empty() {
                return Err(wrong(field, "at least one value is needed".into()));
            }
        }
        // Below 0.1, what one user adds to the inverse is lost in rounding.
        self.l2.iter().try_for_each(|&value| within("l2", value, 0.1, 1e12))?;
        for (field, list) in [
            ("text", &self.text),
            ("neighbours", &self.neighbours),
            ("popularity", &self.popularity),
        ] {
            list.iter().try_for_each(|&value| within(field, value, 0.0, 1e12))?;
        }
        within("new_items", self.new_items, 0.0, 0.9)
    }
}

fn wrong(field: &'static str, problem: String) -> Error {
    Error::Config { system: "linear model", field, problem }
}

fn within(field: &'static str, value: f64, low: f64, high: f64) -> Result<()> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(wrong(field, format!("{value} is not in {low}..={high}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_cannot_work() {
        let field = |config: LinearConfig| match config.validate() {
            Err(Error::Config { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        let config = LinearConfig::default;
        config().validate().unwrap();
        assert_eq!(field(LinearConfig { l2: vec![], ..config() }), "l2");
        assert_eq!(field(LinearConfig { l2: vec![0.01], ..config() }), "l2");
        assert_eq!(field(LinearConfig { text: vec![], ..config() }), "text");
        assert_eq!(field(LinearConfig { text: vec![-1.0], ..config() }), "text");
        assert_eq!(field(LinearConfig { neighbours: vec![f64::NAN], ..config() }), "neighbours");
        assert_eq!(field(LinearConfig { popularity: vec![-0.1], ..config() }), "popularity");
        assert_eq!(field(LinearConfig { new_items: 1.0, ..config() }), "new_items");
    }
}
