//! The training loop that both alignment stages share.

use std::path::Path;

use candle_core::Device;
use glta_comm::Communicator;
use glta_core::{Progress, report};
use glta_projector::Parameters;
use serde::{Deserialize, Serialize};

use crate::config::TrainConfig;
use crate::files::{read_tensors, write_tensors};
use crate::optimizer::{Adam, Tensors, learning_rate, restore, snapshot, update_average};
use crate::progress::Event;
use crate::ranks::{BatchLoss, batch_gradients};
use crate::{Error, Result};

/// An alignment stage, which [`train`] can run.
pub(crate) trait Stage {
    /// Returns the name of the stage, `"item"` or `"user"`.
    fn name(&self) -> &'static str;
    /// Returns the name of the metric that [`evaluate`](Self::evaluate) measures.
    fn metric(&self) -> &'static str;
    /// Returns the trained parameters.
    fn parameters(&self) -> &Parameters;
    /// Draws the examples of an epoch and returns the number of batches. The examples may depend
    /// only on the epoch.
    fn begin_epoch(&mut self, epoch: usize) -> Result<usize>;
    /// Computes the loss of the examples that this rank processes in a batch.
    fn loss(&self, batch: usize, comm: &dyn Communicator) -> Result<BatchLoss>;
    /// Measures the current weights. The value is the same on every rank, and higher is better.
    /// Returns `None` without validation data.
    fn evaluate(&self, comm: &dyn Communicator) -> Result<Option<f64>>;
}

/// Losses and evaluations of a training stage.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct StageHistory {
    /// Mean training loss of each epoch.
    pub losses: Vec<f64>,
    /// Number of finished epochs and value of the metric, for each evaluation.
    pub evaluations: Vec<(usize, f64)>,
    /// Number of finished epochs at the best evaluation, whose weights are saved. `None` without
    /// validation data.
    pub best_epoch: Option<usize>,
}

impl StageHistory {
    /// Returns the value of the metric for the saved weights, or `None` without validation data.
    pub fn best(&self) -> Option<f64> {
        let best = self.best_epoch?;
        self.evaluations.iter().find(|(epoch, _)| *epoch == best).map(|(_, value)| *value)
    }
}

/// The progress of a stage, which a training checkpoint contains in addition to the tensors.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Position {
    stage: String,
    /// Number of finished epochs.
    epoch: usize,
    /// Number of finished batches of the current epoch.
    batch: usize,
    /// Number of updates since the start of the stage.
    step: u64,
    loss_sum: f64,
    loss_count: usize,
    stale: usize,
    history: StageHistory,
}

/// Trains a stage to its end, from its last training checkpoint if the file `state` contains one of
/// this stage, and sets the parameters to the best weights. The results equal those of an
/// uninterrupted run. All ranks have the same weights at every step, and rank 0 saves them.
pub(crate) fn train(
    stage: &mut dyn Stage,
    config: &TrainConfig,
    comm: &dyn Communicator,
    state: &Path,
    progress: &mut dyn Progress<Event>,
) -> Result<StageHistory> {
    let mut run = match Run::load(stage, comm, state)? {
        Some(run) => run,
        None => Run::new(stage, config)?,
    };
    let mut batches = stage.begin_epoch(run.position.epoch)?;
    let steps = (batches * config.epochs) as u64;
    while run.position.epoch < config.epochs && !run.stale(config) {
        while run.position.batch < batches {
            let stepped = run.step(stage, config, comm, steps, progress);
            run.save_if_cancelled(stepped, stage, comm, state)?;
            if run.position.batch < batches
                && run.position.batch.is_multiple_of(config.checkpoint_steps)
            {
                run.save(stage, comm, state)?;
            }
        }
        let ended = run.end_epoch(stage, config, comm, progress);
        run.save_if_cancelled(ended, stage, comm, state)?;
        run.save(stage, comm, state)?;
        if run.position.epoch < config.epochs {
            batches = stage.begin_epoch(run.position.epoch)?;
        }
    }
    run.finish(stage)
}

struct Run {
    position: Position,
    adam: Adam,
    average: Option<Tensors>,
    best: Option<Tensors>,
}

impl Run {
    fn new(stage: &dyn Stage, config: &TrainConfig) -> Result<Self> {
        let average = (config.ema > 0.0).then(|| snapshot(stage.parameters())).transpose()?;
        Ok(Self {
            position: Position { stage: stage.name().to_owned(), ..Position::default() },
            adam: Adam::new(stage.parameters())?,
            average,
            best: None,
        })
    }

    fn step(
        &mut self,
        stage: &dyn Stage,
        config: &TrainConfig,
        comm: &dyn Communicator,
        steps: u64,
        progress: &mut dyn Progress<Event>,
    ) -> Result<()> {
        let _span = tracing::debug_span!("step").entered();
        let part = stage.loss(self.position.batch, comm)?;
        self.position.batch += 1;
        self.position.step += 1;
        let step = self.position.step;
        // A batch without an example also counts as a step of the schedule.
        let whole = batch_gradients(comm, part, stage.parameters(), stage.name())?;
        let Some(whole) = whole else { return Ok(()) };
        let _span = tracing::debug_span!("update").entered();
        let (value, gradients) = whole.clipped(config.clip_norm, stage.name(), step)?;
        let rate = learning_rate(config, step, steps);
        self.adam.step(stage.parameters(), &gradients, rate, step)?;
        if let Some(average) = &mut self.average {
            update_average(average, stage.parameters(), config.ema, step)?;
        }
        self.position.loss_sum += value;
        self.position.loss_count += 1;
        let event = Event::Step { stage: stage.name(), step, steps, loss: value };
        agree(comm, report(progress, &event).map_err(Error::from))
    }

    /// Returns whether none of the last `patience` evaluations has improved the result. Always
    /// false if `patience` is 0.
    fn stale(&self, config: &TrainConfig) -> bool {
        config.patience > 0 && self.position.stale >= config.patience
    }

    /// Ends the epoch, and evaluates the stage if an evaluation is due.
    fn end_epoch(
        &mut self,
        stage: &dyn Stage,
        config: &TrainConfig,
        comm: &dyn Communicator,
        progress: &mut dyn Progress<Event>,
    ) -> Result<()> {
        let position = &mut self.position;
        position.epoch += 1;
        position.batch = 0;
        let mean = position.loss_sum / position.loss_count.max(1) as f64;
        position.history.losses.push(mean);
        (position.loss_sum, position.loss_count) = (0.0, 0);
        let last = position.epoch == config.epochs;
        if !last && !position.epoch.is_multiple_of(config.eval_every) {
            return Ok(());
        }
        let kept = match &self.average {
            None => snapshot(stage.parameters())?,
            Some(average) => average.clone(),
        };
        let current = snapshot(stage.parameters())?;
        restore(stage.parameters(), &kept)?;
        let value = tracing::debug_span!("evaluation").in_scope(|| stage.evaluate(comm));
        restore(stage.parameters(), &current)?;
        let Some(value) = value? else {
            return Ok(());
        };
        let history = &mut position.history;
        let best = history.best().is_none_or(|best| value > best);
        history.evaluations.push((position.epoch, value));
        if best {
            history.best_epoch = Some(position.epoch);
            self.best = Some(kept);
            position.stale = 0;
        } else {
            position.stale += 1;
        }
        let (stage, metric, epoch) = (stage.name(), stage.metric(), position.epoch);
        let event = Event::Evaluated { stage, epoch, metric, value, best };
        agree(comm, report(progress, &event).map_err(Error::from))
    }

    fn finish(self, stage: &dyn Stage) -> Result<StageHistory> {
        if let Some(kept) = self.best.or(self.average) {
            restore(stage.parameters(), &kept)?;
        }
        Ok(self.position.history)
    }

    /// Saves the state of the stage if the progress callback cancelled it. `ended` is the result of
    /// a step or an epoch, and is returned unchanged.
    fn save_if_cancelled(
        &self,
        ended: Result<()>,
        stage: &dyn Stage,
        comm: &dyn Communicator,
        path: &Path,
    ) -> Result<()> {
        if matches!(ended, Err(Error::Cancelled)) {
            self.save(stage, comm, path)?;
            // A rank that exits may end the others, so all ranks wait until rank 0 has written.
            comm.barrier()?;
        }
        ended
    }

    fn save(&self, stage: &dyn Stage, comm: &dyn Communicator, path: &Path) -> Result<()> {
        if !comm.is_root() {
            return Ok(());
        }
        let _span = tracing::debug_span!("checkpoint").entered();
        let mut tensors = Tensors::new();
        let mut put = |kind: &str, values: &Tensors| {
            for (name, tensor) in values {
                tensors.insert(format!("{kind}.{name}"), tensor.clone());
            }
        };
        put("weight", &snapshot(stage.parameters())?);
        let (first, second) = self.adam.state();
        put("first", first);
        put("second", second);
        if let Some(average) = &self.average {
            put("average", average);
        }
        if let Some(best) = &self.best {
            put("best", best);
        }
        let metadata = serde_json::to_string(&self.position).map_err(|e| Error::file(path, e))?;
        write_tensors(path, &tensors, &metadata)
    }

    /// Loads the training checkpoint of this stage, if there is one.
    fn load(stage: &dyn Stage, comm: &dyn Communicator, path: &Path) -> Result<Option<Self>> {
        if !comm.root_says(path.exists())? {
            return Ok(None);
        }
        let device = stage.parameters().values().next().map_or(Device::Cpu, |v| v.device().clone());
        let (mut tensors, metadata) = read_tensors(path, &device)?;
        let position: Position =
            serde_json::from_str(&metadata).map_err(|e| Error::file(path, e))?;
        if position.stage != stage.name() {
            return Ok(None);
        }
        let mut take = |kind: &str| -> Result<Option<Tensors>> {
            let mut found = Tensors::new();
            for (name, var) in stage.parameters() {
                let key = format!("{kind}.{name}");
                if tensors.contains_key(&key) {
                    let (dims, dtype) = (var.dims(), var.dtype());
                    let tensor = crate::files::take(&mut tensors, path, &key, dims, dtype)?;
                    found.insert(name.clone(), tensor);
                }
            }
            Ok((found.len() == stage.parameters().len()).then_some(found))
        };
        let missing = || Error::file(path, "the checkpoint belongs to another model; delete it");
        let weights = take("weight")?.ok_or_else(missing)?;
        let adam = Adam::from_state(
            take("first")?.ok_or_else(missing)?,
            take("second")?.ok_or_else(missing)?,
        );
        let (average, best) = (take("average")?, take("best")?);
        restore(stage.parameters(), &weights)?;
        // Rank 0 overwrites the file with the next checkpoint, so all ranks must have read it.
        comm.barrier()?;
        Ok(Some(Self { position, adam, average, best }))
    }
}

/// Ensures that all ranks stop after the same step if one rank is cancelled.
fn agree(comm: &dyn Communicator, reported: Result<()>) -> Result<()> {
    let cancelled = matches!(reported, Err(Error::Cancelled));
    if comm.any(cancelled)? { Err(Error::Cancelled) } else { reported }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use candle_core::{Tensor, Var};
    use glta_comm::Alone;
    use glta_core::Silent;
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Level, Metadata, Subscriber};

    use super::*;

    /// A stage that pulls `x` towards a target that depends on epoch and batch.
    struct Toy {
        parameters: Parameters,
        epoch: usize,
    }

    impl Toy {
        fn new() -> Self {
            let x = Var::new(&[0f32, 0.0], &Device::Cpu).unwrap();
            Self { parameters: Parameters::from([("x".to_owned(), x)]), epoch: 0 }
        }

        fn value(&self) -> Vec<f32> {
            self.parameters["x"].to_vec1().unwrap()
        }
    }

    impl Stage for Toy {
        fn name(&self) -> &'static str {
            "toy"
        }
        fn metric(&self) -> &'static str {
            "nearness"
        }
        fn parameters(&self) -> &Parameters {
            &self.parameters
        }
        fn begin_epoch(&mut self, epoch: usize) -> Result<usize> {
            self.epoch = epoch;
            Ok(4)
        }
        fn loss(&self, batch: usize, _: &dyn Communicator) -> Result<BatchLoss> {
            if batch == 2 {
                return Ok(BatchLoss::None);
            }
            let target = [(self.epoch * 3 + batch) as f32, 1.0];
            let target = Tensor::new(&target, &Device::Cpu)?;
            let loss = (self.parameters["x"].as_tensor() - target)?.sqr()?.sum_all()?;
            Ok(BatchLoss::Part(loss))
        }
        fn evaluate(&self, _: &dyn Communicator) -> Result<Option<f64>> {
            Ok(Some(-f64::from((self.value()[0] - 3.0).abs())))
        }
    }

    fn config() -> TrainConfig {
        TrainConfig {
            epochs: 9,
            learning_rate: 0.3,
            warmup_steps: 3,
            clip_norm: 2.0,
            ema: 0.8,
            patience: 3,
            checkpoint_steps: 1,
            ..TrainConfig::default()
        }
    }

    #[test]
    fn a_run_interrupted_at_any_step_has_the_same_result() {
        let folder = tempfile::tempdir().unwrap();
        let mut whole = Toy::new();
        let history =
            train(&mut whole, &config(), &Alone, &folder.path().join("whole"), &mut Silent)
                .unwrap();
        assert!(history.losses.len() < 9, "early stopping is part of the test");
        // Running a finished stage again changes nothing.
        let mut again = Toy::new();
        let repeated =
            train(&mut again, &config(), &Alone, &folder.path().join("whole"), &mut Silent)
                .unwrap();
        assert_eq!((repeated, again.value()), (history.clone(), whole.value()));

        for cut in 1..25 {
            let state = folder.path().join(format!("cut-{cut}"));
            let mut seen = 0;
            let broken = train(&mut Toy::new(), &config(), &Alone, &state, &mut |_: &Event| {
                seen += 1;
                if seen == cut { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            let mut toy = Toy::new();
            if broken.is_ok() {
                continue;
            }
            assert!(matches!(broken, Err(Error::Cancelled)));
            assert!(state.exists(), "what was done is saved");
            let resumed = train(&mut toy, &config(), &Alone, &state, &mut Silent).unwrap();
            assert_eq!(resumed, history, "cut at event {cut}");
            assert_eq!(toy.value(), whole.value());
        }
    }

    /// Counts the events of waits for the device.
    struct Waits(Arc<AtomicUsize>);

    impl Subscriber for Waits {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            if *event.metadata().level() == Level::TRACE {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn a_step_waits_for_the_device_once() {
        let folder = tempfile::tempdir().unwrap();
        let waits = Arc::new(AtomicUsize::new(0));
        let mut steps = 0;
        tracing::subscriber::with_default(Waits(Arc::clone(&waits)), || {
            train(
                &mut Toy::new(),
                &config(),
                &Alone,
                &folder.path().join("s"),
                &mut |event: &Event| {
                    steps += usize::from(matches!(event, Event::Step { .. }));
                    ControlFlow::Continue(())
                },
            )
        })
        .unwrap();
        assert!(steps > 3);
        assert_eq!(waits.load(Ordering::Relaxed), steps);
    }

    #[test]
    fn a_loss_that_is_not_finite_stops_with_the_step() {
        struct Bad(Toy);
        impl Stage for Bad {
            fn name(&self) -> &'static str {
                "user"
            }
            fn metric(&self) -> &'static str {
                "N@10"
            }
            fn parameters(&self) -> &Parameters {
                &self.0.parameters
            }
            fn begin_epoch(&mut self, _: usize) -> Result<usize> {
                Ok(1)
            }
            fn loss(&self, _: usize, _: &dyn Communicator) -> Result<BatchLoss> {
                let x = self.0.parameters["x"].as_tensor();
                Ok(BatchLoss::Part(((x.sum_all()? + 1.0)? / 0.0)?))
            }
            fn evaluate(&self, _: &dyn Communicator) -> Result<Option<f64>> {
                Ok(None)
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let error =
            train(&mut Bad(Toy::new()), &config(), &Alone, &folder.path().join("s"), &mut Silent)
                .unwrap_err();
        let message = error.to_string();
        assert!(message.contains("step 1") && message.contains("user"), "{message}");
    }
}
