//! The driver without the feature `cuda`: every device is an error.

use std::sync::Arc;

use candle_core::Device;

use super::driver::Driver;
use crate::error::{Error, Result};

pub(super) fn open(_: &Device) -> Result<Arc<dyn Driver>> {
    Err(Error::Unsupported {
        what: "a CUDA device".into(),
        supported: "the CPU; CUDA devices where this was built with the feature `cuda`",
    })
}
