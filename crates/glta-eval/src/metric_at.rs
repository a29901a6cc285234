use std::fmt;
use std::str::FromStr;

use glta_metrics::{Metric, Report};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A metric with a cut-off, written as in the tables: `N@10`.
///
/// ```
/// use glta_eval::MetricAt;
///
/// let metric: MetricAt = "R@20".parse()?;
/// assert_eq!((metric.k, metric.to_string()), (20, "R@20".to_owned()));
/// # Ok::<(), glta_eval::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MetricAt {
    /// The metric, without the cut-off.
    pub metric: Metric,
    /// The cut-off: number of leading list items that the metric uses.
    pub k: usize,
}

impl MetricAt {
    pub(crate) const fn new(metric: Metric, k: usize) -> Self {
        Self { metric, k }
    }

    /// Returns the mean over users; `None` if the report does not contain the cut-off.
    pub(crate) fn of(self, report: &Report) -> Option<f64> {
        report.get(self.metric, self.k)
    }
}

impl fmt::Display for MetricAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.metric.short_name(), self.k)
    }
}

impl FromStr for MetricAt {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.trim().split_once('@');
        let found = parts.and_then(|(name, k)| {
            let metric =
                Metric::ALL.into_iter().find(|m| m.short_name().eq_ignore_ascii_case(name))?;
            Some(Self { metric, k: k.parse().ok().filter(|&k| k > 0)? })
        });
        found.ok_or_else(|| Error::Config {
            field: "protocol.metrics",
            problem: format!(
                "`{text}` is not a metric with a cut-off; write NAME@K, such as N@10, with one of \
                 {}",
                Metric::ALL.map(Metric::short_name).join(", ")
            ),
        })
    }
}

impl From<MetricAt> for String {
    fn from(metric: MetricAt) -> Self {
        metric.to_string()
    }
}

impl TryFrom<String> for MetricAt {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_invalid_ones_are_errors() {
        for metric in Metric::ALL {
            let at = MetricAt::new(metric, 7);
            assert_eq!(at.to_string().parse::<MetricAt>().unwrap(), at);
        }
        for text in ["N", "N@", "N@0", "N@-1", "X@10", "", "@5"] {
            let message = text.parse::<MetricAt>().unwrap_err().to_string();
            assert!(message.contains("NAME@K"), "{message}");
        }
    }
}
