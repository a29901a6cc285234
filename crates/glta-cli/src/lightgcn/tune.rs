//! `--search`: trains every setting of a grid and keeps the best on validation data.

use std::error::Error as StdError;
use std::path::Path;
use std::time::Instant;

use glta_comm::Communicator;
use glta_core::{Grid, Trial, search};
use glta_graph::{LightGcnConfig, Trained};
use serde_json::Value;

use super::settings::read_toml;
use super::train::Training;
use crate::Result;
use crate::files::save;
use crate::output::{errln, outln};

/// Trains `base` with every setting of the file `grid`. Rank 0 prints the trials and writes
/// `search.json` to `out`.
pub(super) fn tune(
    training: &Training<'_>,
    grid: &Path,
    out: &Path,
    base: &LightGcnConfig,
) -> Result<(LightGcnConfig, Trained)> {
    if training.split.valid.is_empty() {
        return Err("--search chooses on validation data: give a --valid-ratio above 0".into());
    }
    let root = training.ranks.is_root();
    let grid: Grid = read_toml(grid)?;
    let candidates = grid.candidates(base)?;
    let mut done = 0;
    let mut trials = Vec::new();
    let found = search(&candidates, |config| {
        done += 1;
        if !training.args.quiet && root {
            errln!("search {done}/{}: {}", candidates.len(), describe(&grid, config));
        }
        let started = Instant::now();
        let trained = training.train(config)?;
        let score = trained.best_validation().unwrap_or(f64::NAN);
        let seconds = started.elapsed().as_secs_f64();
        trials.push(Trial { config: config.clone(), score, seconds });
        // The file is written after each trial, because a search takes long.
        if root {
            save(&out.join("search.json"), &serde_json::to_vec_pretty(&trials)?)?;
        }
        Ok::<_, Box<dyn StdError + Send + Sync>>((score, trained))
    })?;
    if root {
        outln!("\n{:>10} {:>9}  settings", "validation", "seconds");
        for trial in &found.trials {
            let settings = describe(&grid, &trial.config);
            outln!("{:>10.4} {:>9.1}  {settings}", trial.score, trial.seconds);
        }
    }
    let (best, trained) = found.best.ok_or("no setting has a validation score")?;
    Ok((candidates[best].clone(), trained))
}

/// Describes the values that a configuration has in the fields of the grid.
fn describe(grid: &Grid, config: &LightGcnConfig) -> String {
    let value = serde_json::to_value(config).unwrap_or_default();
    let field = |name: &String| {
        let pointer = format!("/{}", name.replace('.', "/"));
        match value.pointer(&pointer) {
            Some(Value::Number(n)) => format!("{name}={}", n.as_f64().unwrap_or(0.0) as f32),
            Some(other) => format!("{name}={other}"),
            None => name.clone(),
        }
    };
    grid.0.keys().map(field).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_candidate_is_described_by_the_fields_of_the_grid() {
        let values = |values: &[f64]| values.iter().map(|&v| Value::from(v)).collect();
        let grid = Grid(BTreeMap::from([
            ("l2".to_owned(), values(&[1e-4, 1e-3])),
            ("learning_rate".to_owned(), values(&[0.01])),
        ]));
        let candidates = grid.candidates(&LightGcnConfig::default()).unwrap();
        assert_eq!(candidates.len(), 2);
        assert_eq!(describe(&grid, &candidates[1]), "l2=0.001 learning_rate=0.01");
    }
}
