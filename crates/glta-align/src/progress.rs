use glta_graph::EpochReport;
use glta_linear::LinearStep;

/// Progress of a run.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// An epoch of graph pretraining ended.
    Graph(EpochReport),
    /// A text encoder reads the item texts.
    TextVectors {
        /// Number of encoded texts.
        done: usize,
        /// Total number of texts.
        total: usize,
    },
    /// The linear model is being fitted.
    Linear(LinearStep),
    /// Profiles and predictions are being written.
    Texts {
        /// Number of users whose texts are written.
        done: usize,
        /// Total number of users.
        total: usize,
    },
    /// A training step ended.
    Step {
        /// `"item"` or `"user"`.
        stage: &'static str,
        /// Steps of this stage, including those before a resume.
        step: u64,
        /// Total steps of the stage without early stopping.
        steps: u64,
        /// The step's loss.
        loss: f64,
    },
    /// The stage was evaluated.
    Evaluated {
        /// `"item"` or `"user"`.
        stage: &'static str,
        /// Number of finished epochs.
        epoch: usize,
        /// `"accuracy"` (chance is one over the items shown) or `"N@10"`.
        metric: &'static str,
        /// The metric's value on validation data.
        value: f64,
        /// Whether it is the best so far.
        best: bool,
    },
}
