use glta_data::Interactions;
use serde::{Deserialize, Serialize};

use crate::{Error, Form, Result, Solver};

/// Mean number of interactions per item from which a low-rank part is tried.
const DENSE_DATA: f64 = 100.0;

/// Settings of [`LinearModel`](crate::LinearModel).
///
/// A fit chooses from each list the value with the highest N@10 on validation data. Without
/// validation data, it uses the first form and the middle values of `l2` and `text`, and leaves out
/// neighbours and popularity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinearConfig {
    /// Solvers to try. The dense solver is left out for more than `max_items` items, and
    /// [`LinearReport::left_out`](crate::LinearReport::left_out) contains the reason. Default both.
    pub solvers: Vec<Solver>,
    /// Maximum numbers of sources per item to try in the local form. Default 64.
    pub sources: Vec<usize>,
    /// Ranks of the low-rank part of the local form. They are tried in addition to 0 if items have
    /// at least 100 interactions on average. Default 128.
    pub rank: Vec<usize>,
    /// Values of λ, the L2 regularisation. Default 10, 30, 100, 300.
    pub l2: Vec<f64>,
    /// Values of α, the weight of the text vectors in the Gram matrix; 0 leaves them out. Default
    /// 1, 3, 10, 30.
    pub text: Vec<f64>,
    /// Values of β, the weight of the text neighbours, tried in addition to 0. Default 0.003, 0.01,
    /// 0.03, 0.1, 0.3.
    pub neighbours: Vec<f64>,
    /// Values of γ, the weight of `ln(1 + degree)`, tried in addition to 0. Default 0.001, 0.003,
    /// 0.01.
    pub popularity: Vec<f64>,
    /// Share of the items that are treated as new while the settings are chosen. Their interactions
    /// are left out of the fit and added to the validation items. Text neighbours then have the
    /// weight `1 / (1 + degree)`, and an item without interactions has the mean popularity of the
    /// others. Use 0, the default, for a catalogue that does not grow; new items then rank low.
    pub new_items: f64,
    /// Maximum number of items for the dense form. The form takes `16 · items²` bytes while
    /// settings are tried (`12 · items²` for the fit, `4 · items²` for the best model so far), and
    /// `4 · items²` bytes afterwards. Default 20,000 (6.4 GB).
    pub max_items: usize,
    /// Maximum number of co-occurring items per item that the local form keeps: those with the
    /// largest `count / √(degree + 1)`. Default 256.
    pub rows: usize,
    /// Maximum number of text neighbours per item, both in the scores and as candidates for
    /// sources. Default 128.
    pub text_neighbours: usize,
}

impl Default for LinearConfig {
    fn default() -> Self {
        Self {
            solvers: vec![Solver::Local, Solver::Dense],
            sources: vec![64],
            rank: vec![128],
            l2: vec![10.0, 30.0, 100.0, 300.0],
            text: vec![1.0, 3.0, 10.0, 30.0],
            neighbours: vec![0.003, 0.01, 0.03, 0.1, 0.3],
            popularity: vec![0.001, 0.003, 0.01],
            new_items: 0.0,
            max_items: 20_000,
            rows: 256,
            text_neighbours: 128,
        }
    }
}

impl LinearConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if `solvers`, `sources`, `l2` or `text` is empty or a value is out
    /// of range.
    pub fn validate(&self) -> Result<()> {
        let lengths = [
            ("solvers", self.solvers.len()),
            ("sources", self.sources.len()),
            ("l2", self.l2.len()),
            ("text", self.text.len()),
        ];
        if let Some((field, _)) = lengths.into_iter().find(|&(_, length)| length == 0) {
            return Err(invalid(field, "at least one value is needed".into()));
        }
        let sources = self.sources.iter().map(|&k| ("sources", k));
        let sizes = [("rows", self.rows), ("text_neighbours", self.text_neighbours)];
        for (field, size) in sources.chain(sizes) {
            within(field, size as f64, 1.0, 1e6)?;
        }
        self.rank.iter().try_for_each(|&rank| within("rank", rank as f64, 0.0, 4096.0))?;
        // Below 0.1, the contribution of one user to the inverse is lost in rounding.
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

    /// Returns the forms to try on `train`, and a reason if the dense form was requested but is
    /// left out (otherwise `None`).
    ///
    /// # Errors
    /// Returns [`Error::TooManyItems`] if `solvers` contains only the dense one and there are more
    /// than `max_items` items.
    pub fn forms(&self, train: &Interactions) -> Result<(Vec<Form>, Option<String>)> {
        let items = train.n_items();
        let (mut forms, mut left_out) = (Vec::new(), None);
        for solver in &self.solvers {
            match solver {
                Solver::Dense if items > self.max_items => {
                    let limit = self.max_items;
                    let gigabytes = 16.0 * (items as f64).powi(2) / 1e9;
                    let error = Error::TooManyItems { items, limit, gigabytes };
                    if self.solvers.iter().all(|&solver| solver == Solver::Dense) {
                        return Err(error);
                    }
                    left_out = Some(error.to_string());
                }
                Solver::Dense => forms.push(Form::Dense),
                Solver::Local => {
                    let dense_data = train.len() as f64 >= DENSE_DATA * items.max(1) as f64;
                    let ranks: &[usize] = if dense_data { &self.rank } else { &[] };
                    let ranks = ranks.iter().copied().filter(|&rank| rank > 0);
                    for rank in std::iter::once(0).chain(ranks) {
                        let of = |&sources: &usize| Form::Local { sources, rank };
                        forms.extend(self.sources.iter().map(of));
                    }
                }
            }
        }
        Ok((forms, left_out))
    }
}
fn invalid(field: &'static str, problem: String) -> Error {
    Error::Config { system: "linear model", field, problem }
}

fn within(field: &'static str, value: f64, low: f64, high: f64) -> Result<()> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(invalid(field, format!("{value} is not in {low}..={high}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_settings_and_data_are_errors() {
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
