use glta_graph::EpochReport;
use glta_linear::LinearStep;

/// An event that reports the progress of a run.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// An epoch of graph pretraining has ended.
    Graph(EpochReport),
    /// A text encoder has encoded some of the item texts.
    TextVectors {
        /// Number of encoded texts.
        done: usize,
        /// Total number of texts.
        total: usize,
    },
    /// The fit of the linear model has finished a step.
    Linear(LinearStep),
    /// The profiles and predictions of some users have been written.
    Texts {
        /// Number of users whose texts are written.
        done: usize,
        /// Total number of users.
        total: usize,
    },
    /// A training step of an alignment stage has ended.
    Step {
        /// Name of the stage, `"item"` or `"user"`.
        stage: &'static str,
        /// Number of finished steps of the stage, including those before a resume.
        step: u64,
        /// Total number of steps of the stage without early stopping.
        steps: u64,
        /// Loss of the step.
        loss: f64,
    },
    /// An alignment stage has been evaluated.
    Evaluated {
        /// Name of the stage, `"item"` or `"user"`.
        stage: &'static str,
        /// Number of finished epochs.
        epoch: usize,
        /// Name of the metric: `"accuracy"` (matching accuracy, by chance one over the number of
        /// items shown) or `"N@10"`.
        metric: &'static str,
        /// Value of the metric on validation data.
        value: f64,
        /// Whether the value is the best so far.
        best: bool,
    },
}
