use glta_graph::EpochReport;
use glta_linear::LinearStep;

/// What long work reports while it runs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// An epoch of graph pretraining has ended.
    Graph(EpochReport),
    /// The items' texts are being read by a text encoder.
    TextVectors {
        /// Texts read.
        done: usize,
        /// Texts in all.
        total: usize,
    },
    /// The linear item model is being fitted.
    Linear(LinearStep),
    /// Profiles and predictions are being written.
    Texts {
        /// Users whose texts are written.
        done: usize,
        /// Users in all.
        total: usize,
    },
    /// A training step has ended.
    Step {
        /// `"item"` or `"user"`.
        stage: &'static str,
        /// Steps taken in this stage, those before a resume included.
        step: u64,
        /// Steps of the stage if it is not stopped early.
        steps: u64,
        /// The step's loss.
        loss: f64,
    },
    /// The stage was evaluated.
    Evaluated {
        /// `"item"` or `"user"`.
        stage: &'static str,
        /// Epochs that have ended.
        epoch: usize,
        /// `"accuracy"` (chance is one over the items shown) or `"N@10"`.
        metric: &'static str,
        /// The metric's value on validation data.
        value: f64,
        /// Whether it is the best so far.
        best: bool,
    },
}
