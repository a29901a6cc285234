//! The driver of a build without the feature `cuda`: refuses.

use super::{Arg, Launch, Source};
use crate::error::{Error, Result};
use candle_core::{Device, Tensor};

fn absent<T>() -> Result<T> {
    Err(Error::Unsupported {
        what: "a CUDA device".into(),
        supported: "the CPU; CUDA devices where this was built with the feature `cuda`",
    })
}

pub(super) fn prepare(_: &Device) -> Result<()> {
    absent()
}

pub(super) fn launch(_: Source, _: &str, _: Launch, _: &[Arg]) -> Result<()> {
    absent()
}

pub(super) fn address(_: &Tensor) -> Result<u64> {
    absent()
}

pub(super) fn product_f32(_: &Tensor, _: &Tensor) -> Result<Tensor> {
    absent()
}
