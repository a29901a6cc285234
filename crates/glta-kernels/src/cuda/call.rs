//! Recorded calls of a device.

use candle_core::{DType, Tensor};

use super::kernels::Kernel;
use super::launch::{Arg, Launch};

/// A recorded call, which keeps its tensors.
#[derive(Clone, Debug)]
pub(super) enum Call {
    /// A launch of a kernel.
    Launch { kernel: Kernel, dtype: DType, launch: Launch, args: Vec<Kept> },
    /// A product of the driver.
    Product { x: Tensor, w: Tensor, y: Tensor, first: usize },
}

/// An argument of a recorded launch.
#[derive(Clone, Debug)]
pub(super) enum Kept {
    In(Tensor),
    Out(Tensor),
    InOut(Tensor),
    /// A table of addresses, without its tensors, which the replay supplies.
    Table(Tensor),
    Null,
    U32(usize),
    F32(f32),
}

impl Kept {
    /// Copies an argument.
    pub(super) fn of(arg: &Arg) -> Self {
        match *arg {
            Arg::In(t) => Self::In(t.clone()),
            Arg::Out(t) => Self::Out(t.clone()),
            Arg::InOut(t) => Self::InOut(t.clone()),
            Arg::Table(t, _) => Self::Table(t.clone()),
            Arg::Null => Self::Null,
            Arg::U32(v) => Self::U32(v),
            Arg::F32(v) => Self::F32(v),
        }
    }

    /// Returns the argument. `rows` are the tensors whose addresses are in a table.
    pub(super) fn arg<'a>(&'a self, rows: &'a [Tensor]) -> Arg<'a> {
        match self {
            Self::In(t) => Arg::In(t),
            Self::Out(t) => Arg::Out(t),
            Self::InOut(t) => Arg::InOut(t),
            Self::Table(t) => Arg::Table(t, rows),
            Self::Null => Arg::Null,
            Self::U32(v) => Arg::U32(*v),
            Self::F32(v) => Arg::F32(*v),
        }
    }
}
