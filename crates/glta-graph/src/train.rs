use std::collections::BTreeMap;
use std::time::Instant;

use glta_comm::{Alone, Communicator};
use glta_core::{Progress, Silent, stream};
use glta_data::Interactions;
use glta_metrics::{EvaluationConfig, Report, evaluate};
use ndarray::{Array2, s};
use rand_distr::{Distribution, Normal};
use rayon::prelude::*;

use crate::adjacency::Adjacency;
use crate::columns::Columns;
use crate::config::{LightGcnConfig, SelectionMetric};
use crate::propagate::mean_of_layers;
use crate::sampler::{Batch, Sampler};
use crate::step::{Parameters, Step};
use crate::{EpochReport, Error, NodeEmbeddings, Result, Trained};

/// Number of rows of the initial embeddings per random stream.
const STREAM_ROWS: usize = 1024;

/// A trainer of LightGCN (He et al. 2020). The score of a user and an item is the inner product of
/// their embeddings. An embedding is the mean of a node's vectors in all layers of the propagation.
///
/// The result depends only on the configuration and the data, not on the number of threads.
///
/// ```
/// use glta_data::Interactions;
/// use glta_graph::{LightGcn, LightGcnConfig};
///
/// let train = Interactions::from_pairs(3, 4, [(0, 0), (0, 1), (1, 1), (1, 2), (2, 3)])?;
/// let config = LightGcnConfig { dim: 8, epochs: 20, ..Default::default() };
/// let trained = LightGcn::new(config)?.train(&train, None)?;
/// assert_eq!(trained.embeddings.items.dim(), (4, 8));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct LightGcn {
    config: LightGcnConfig,
}

impl LightGcn {
    /// Creates a trainer.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if a setting is invalid.
    pub fn new(config: LightGcnConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self { config })
    }

    /// Returns the settings.
    pub fn config(&self) -> &LightGcnConfig {
        &self.config
    }

    /// Trains from random embeddings.
    ///
    /// With validation data, training stops after [`LightGcnConfig::patience`] evaluations without
    /// an improvement of the selection metric, and the best epoch is returned. Without validation
    /// data, or without `keep_best`, the last epoch is returned.
    ///
    /// # Errors
    /// Returns an error if the sizes of the data differ, if there is nothing to train on, if the
    /// loss diverges, or if an evaluation fails.
    pub fn train(&self, train: &Interactions, valid: Option<&Interactions>) -> Result<Trained> {
        self.train_with(train, valid, &mut Silent)
    }

    /// Trains like [`train`](Self::train) and reports every epoch to `progress`. If the callback
    /// returns `Break`, training ends with [`Error::Cancelled`], which contains the result so far.
    ///
    /// # Errors
    /// Returns the errors of [`train`](Self::train), and [`Error::Cancelled`].
    pub fn train_with(
        &self,
        train: &Interactions,
        valid: Option<&Interactions>,
        progress: &mut dyn Progress<EpochReport>,
    ) -> Result<Trained> {
        self.train_on(&Alone, None, train, valid, progress)
    }

    /// Trains on all ranks of `comm` ([`Alone`] for a single process). Training starts from the
    /// layer-0 embeddings `start`, such as [`Trained::layer0`] of an earlier run, or from random
    /// ones. All ranks must pass the same data and settings, and all get the same result. The
    /// moments of Adam start at zero.
    ///
    /// Propagation is nearly all of the work, and it treats each column of the embeddings
    /// separately. Each rank therefore processes a part of the columns, a multiple of sixteen; the
    /// ranks sum the scores of each batch's triples. More than `dim / 16` ranks do not make
    /// training faster. If the ranks divided the triples instead, each of them would propagate the
    /// whole graph.
    ///
    /// # Errors
    /// Returns the errors of [`train_with`](Self::train_with), an error for embeddings that do not
    /// match the data, and [`Error::Comm`].
    pub fn train_on(
        &self,
        comm: &dyn Communicator,
        start: Option<&NodeEmbeddings>,
        train: &Interactions,
        valid: Option<&Interactions>,
        progress: &mut dyn Progress<EpochReport>,
    ) -> Result<Trained> {
        let config = &self.config;
        let drawn;
        let start = match start {
            Some(start) => start,
            None => {
                drawn = self.initial(train.n_users(), train.n_items());
                &drawn
            }
        };
        if let Some(valid) = valid {
            check("users of the validation data", train.n_users(), valid.n_users())?;
            check("items of the validation data", train.n_items(), valid.n_items())?;
        }
        check("embedding columns", config.dim, start.users.ncols())?;
        check("item embedding columns", config.dim, start.items.ncols())?;
        let sampler = Sampler::new(train, config)?;
        let graph = Adjacency::new(train)?;
        let columns = Columns::of(comm, config.dim);
        let own = columns.own();
        let values =
            graph.load(start.users.slice(s![.., own.clone()]), start.items.slice(s![.., own]))?;
        let mut parameters = Parameters::new(&graph, values);
        let mut step = Step::new(&graph, config, columns.own().len());
        let mut batch = Batch::default();

        let per_epoch = train.len().div_ceil(config.batch_size);
        let mut history: Vec<EpochReport> = Vec::new();
        let mut best: Option<(f64, usize)> = None;
        let mut best_values = None;
        let mut cancelled = false;
        for epoch in 1..=config.epochs {
            let clock = Instant::now();
            let mut learning_rate = config.learning_rate;
            let mut sum = 0.0;
            for b in 0..per_epoch {
                let done = (epoch - 1) * per_epoch + b;
                let total = config.epochs * per_epoch;
                learning_rate =
                    config.learning_rate * config.schedule.ratio(done, total, per_epoch);
                let first = b * config.batch_size;
                let len = config.batch_size.min(train.len() - first);
                sampler.fill(&mut batch, (epoch - 1) * train.len() + first, len);
                let loss = step.gradients(comm, &graph, &mut parameters, &batch)?;
                if !loss.is_finite() {
                    return Err(Error::Diverged { epoch, loss, learning_rate });
                }
                sum += loss * len as f64;
                step.update(&graph, &mut parameters, learning_rate);
            }
            let mut report = EpochReport {
                epoch,
                loss: sum / train.len() as f64,
                learning_rate,
                seconds: clock.elapsed().as_secs_f64(),
                validation: None,
                metrics: BTreeMap::new(),
                best: false,
            };
            let due = epoch % config.eval_every == 0 || epoch == config.epochs;
            if let (true, Some(valid)) = (due, valid) {
                let nodes = mean_of_layers(&graph, &parameters.values, config.layers);
                let embeddings = columns.join(graph.unload(&nodes))?;
                let found = validate(&embeddings, train, valid, config.selection)?;
                let SelectionMetric { metric, k } = config.selection;
                let value = found.get(metric, k).unwrap_or(0.0);
                report.validation = Some(value);
                report.metrics = found.iter().collect();
                if best.is_none_or(|(b, _)| value > b) {
                    report.best = true;
                    best = Some((value, epoch));
                    if config.keep_best {
                        best_values = Some(parameters.values.clone());
                    }
                }
            }
            tracing::debug!(epoch, loss = report.loss, validation = report.validation);
            let flow = progress.report(&report);
            history.push(report);
            if comm.any(flow.is_break())? {
                cancelled = true;
                break;
            }
            let waited = best.map_or(0, |(_, at)| (epoch - at) / config.eval_every);
            if due && config.patience > 0 && waited >= config.patience {
                break;
            }
        }
        drop(step);
        let last = parameters.into_values();
        let values = best_values.unwrap_or(last);
        let trained = Trained {
            embeddings: columns.join(graph.unload(&mean_of_layers(
                &graph,
                &values,
                config.layers,
            )))?,
            layer0: columns.join(graph.unload(&values))?,
            best_epoch: match best {
                Some((_, epoch)) if config.keep_best => epoch,
                _ => history.len(),
            },
            history,
        };
        if cancelled { Err(Error::Cancelled(Box::new(trained))) } else { Ok(trained) }
    }

    /// Draws normally distributed embeddings.
    fn initial(&self, users: usize, items: usize) -> NodeEmbeddings {
        let matrix = |rows: usize, purpose: &str| {
            let mut out = Array2::zeros((rows, self.config.dim));
            if let Some(values) = out.as_slice_mut() {
                fill_normal(
                    values,
                    self.config.dim,
                    self.config.init_std,
                    self.config.seed,
                    purpose,
                );
            }
            out
        };
        NodeEmbeddings {
            users: matrix(users, "user embeddings"),
            items: matrix(items, "item embeddings"),
        }
    }
}

fn fill_normal(values: &mut [f32], dim: usize, std: f32, seed: u64, purpose: &str) {
    // The standard deviation was validated: it is finite and not negative.
    let Ok(normal) = Normal::new(0.0f32, std) else {
        return;
    };
    values.par_chunks_mut(STREAM_ROWS * dim).enumerate().for_each(|(k, rows)| {
        let mut rng = stream(seed, purpose, &[k as u64]);
        rows.fill_with(|| normal.sample(&mut rng));
    });
}

fn check(what: &'static str, expected: usize, got: usize) -> Result<()> {
    if expected == got {
        return Ok(());
    }
    Err(Error::Shape { what, expected, got })
}

/// Measures the lists of the validation users, with training items masked.
fn validate(
    embeddings: &NodeEmbeddings,
    train: &Interactions,
    valid: &Interactions,
    selection: SelectionMetric,
) -> Result<Report> {
    let config = EvaluationConfig { ks: vec![5, 10, 20, selection.k], ..Default::default() };
    Ok(evaluate(&embeddings.scorer(), valid, &[train], &config)?)
}
