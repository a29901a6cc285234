//! Prints the results as a table.

use std::array::from_fn;
use std::collections::BTreeMap;

use super::record::SeedResult;
use crate::output::outln;

const COLUMNS: [&str; 7] = ["P@5", "P@10", "P@20", "N@5", "N@10", "N@20", "R@20"];

/// Values of one row, one per column.
type Values = [f64; COLUMNS.len()];

/// Prints one line per seed, and the mean and standard deviation.
pub(super) fn print(results: &[SeedResult]) {
    let names = COLUMNS.map(|c| format!("{c:>8}")).concat();
    outln!("\n{:<16}{names}{:>8}{:>9}", "LightGCN", "epoch", "seconds");
    for result in results {
        let name = format!("seed {}", result.config.seed);
        let (epoch, seconds) = (result.trained.best_epoch, result.seconds);
        outln!("{}{epoch:>8}{seconds:>9.1}", line(&name, values(result)));
    }
    if results.len() > 1 {
        let all: Vec<Values> = results.iter().map(values).collect();
        let (mean, deviation) = mean_and_deviation(&all);
        outln!("{}\n{}", line("mean", mean), line("deviation", deviation));
    }
}

fn values(result: &SeedResult) -> Values {
    let metrics: BTreeMap<String, f64> = result.report.iter().collect();
    COLUMNS.map(|c| metrics.get(c).copied().unwrap_or_default())
}

fn line(name: &str, values: Values) -> String {
    format!("{name:<16}{}", values.map(|v| format!("{v:>8.4}")).concat())
}

/// Returns the mean and the sample standard deviation of each column.
fn mean_and_deviation(all: &[Values]) -> (Values, Values) {
    let n = all.len() as f64;
    let mean: Values = from_fn(|c| all.iter().map(|v| v[c]).sum::<f64>() / n);
    let deviation = from_fn(|c| {
        let squares: f64 = all.iter().map(|v| (v[c] - mean[c]).powi(2)).sum();
        (squares / (n - 1.0)).sqrt()
    });
    (mean, deviation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_sample_deviation_are_taken_by_column() {
        let all = [[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0], [3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0]];
        let (mean, deviation) = mean_and_deviation(&all);
        assert_eq!((mean[0], mean[6]), (2.0, 2.0));
        assert_eq!((deviation[0], deviation[6]), (2.0_f64.sqrt(), 0.0));
        assert_eq!(
            line("mean", mean),
            format!("{:<16}  2.0000{}  2.0000", "mean", "  0.0000".repeat(5))
        );
    }
}
