//! The model of a finished run.

use crate::Result;
use crate::lists::{LinearLists, Lists};
use crate::model::Glta;

/// The model that makes the lists of a finished run.
#[derive(Debug)]
pub(crate) enum Model {
    /// A linear model without a prompt path.
    Linear(Box<LinearLists>),
    /// A prompt path, with or without a linear model.
    Prompt(Box<Glta>),
}

impl Model {
    /// Returns a trained model. The prompt path is dropped if the chosen factor of the correction
    /// is 0.
    pub(crate) fn trained(model: Glta) -> Result<Self> {
        match model.linear() {
            Some(linear) if model.mix()? == 0.0 => {
                let lists = LinearLists::new(model.config().clone(), linear.clone());
                Ok(Self::Linear(Box::new(lists)))
            }
            _ => Ok(Self::Prompt(Box::new(model))),
        }
    }

    pub(crate) fn lists(&self) -> &dyn Lists {
        match self {
            Self::Linear(lists) => &**lists,
            Self::Prompt(model) => &**model,
        }
    }
}
