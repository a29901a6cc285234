//! What a finished run answers with.

use crate::Result;
use crate::lists::{LinearLists, Lists};
use crate::model::Glta;

/// What makes the lists.
#[derive(Debug)]
pub(crate) enum Model {
    /// The linear item model alone.
    Linear(Box<LinearLists>),
    /// The path through the prompt, beside a linear item model or without one.
    Prompt(Box<Glta>),
}

impl Model {
    /// A trained model, without the path through the prompt where validation chose the
    /// factor 0 for it.
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
