//! The driver of a build without the feature `cuda`: there is none.

use super::kernels::{Kernel, Source};
use super::launch::{Arg, Launch, check};
use crate::error::{Error, Result};
use candle_core::{DType, Device, Tensor};

#[derive(Clone, Debug)]
pub(crate) struct Driver(());

impl Driver {
    pub(super) fn prepare(_: &Device) -> Result<Self> {
        absent()
    }

    pub(super) fn load(&self, _: Source) -> Result<()> {
        absent()
    }

    pub(super) fn launch(
        &self,
        kernel: Kernel,
        _: DType,
        launch: Launch,
        args: &[Arg],
    ) -> Result<()> {
        check(kernel, launch, args)?;
        absent()
    }

    pub(super) fn product_f32(&self, _: &Tensor, _: &Tensor) -> Result<Tensor> {
        absent()
    }
}

pub(super) fn address(_: &Tensor) -> Result<u64> {
    absent()
}

fn absent<T>() -> Result<T> {
    Err(Error::Unsupported {
        what: "a CUDA device".into(),
        supported: "the CPU; CUDA devices where this was built with the feature `cuda`",
    })
}
