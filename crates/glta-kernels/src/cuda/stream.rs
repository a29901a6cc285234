//! Calls of a device in order, and recordings of them.
//!
//! All launches, products and results of a pass go through a [`Stream`]. It can record the calls of
//! a thread instead of making them. A [`Graph`] repeats recorded calls with the same arguments and
//! the same memory, so what changes from one step to the next must be in device memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use candle_core::{DType, Device, Shape, Tensor};

use super::call::{Call, Kept};
use super::driver::{Driver, Graph};
use super::kernels::{Kernel, Source};
use super::launch::{Arg, Launch, check};
use crate::error::{Error, Result};

/// Results of one stage of a recording, which a later stage uses again.
#[derive(Debug, Default)]
struct Buffers {
    all: Vec<Tensor>,
    used: Vec<bool>,
}

impl Buffers {
    fn take(&mut self, shape: &Shape, dtype: DType) -> Result<Option<Tensor>> {
        for (buffer, used) in self.all.iter().zip(&mut self.used) {
            if !*used && buffer.dtype() == dtype && buffer.elem_count() == shape.elem_count() {
                *used = true;
                return Ok(Some(buffer.reshape(shape)?));
            }
        }
        Ok(None)
    }

    fn put(&mut self, tensor: &Tensor) {
        self.all.push(tensor.clone());
        self.used.push(true);
    }
}

/// The calls of a thread so far.
#[derive(Debug, Default)]
struct Recording {
    calls: Vec<Call>,
    /// Results of the current stage, and of the previous one, which the current stage reads.
    current: Buffers,
    previous: Buffers,
}

/// The calls of one device.
#[derive(Debug)]
pub(super) struct Stream {
    driver: Arc<dyn Driver>,
    /// Number of recordings, so that other calls need no lock.
    recording: AtomicUsize,
    recordings: Mutex<HashMap<ThreadId, Recording>>,
}

impl Stream {
    pub(super) fn new(driver: Arc<dyn Driver>) -> Self {
        Self { driver, recording: AtomicUsize::new(0), recordings: Mutex::default() }
    }

    pub(super) fn load(&self, source: Source) -> Result<()> {
        self.driver.load(source)
    }

    pub(super) fn free_memory(&self) -> Result<Option<usize>> {
        self.driver.free_memory()
    }

    pub(super) fn address(&self, tensor: &Tensor) -> Result<u64> {
        self.driver.address(tensor)
    }

    fn recordings(&self) -> MutexGuard<'_, HashMap<ThreadId, Recording>> {
        self.recordings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes this thread's recording to `f`. Returns `None` if the thread does not record.
    fn recorded<R>(&self, f: impl FnOnce(&mut Recording) -> R) -> Option<R> {
        if self.recording.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.recordings().get_mut(&thread::current().id()).map(f)
    }

    /// Returns whether this thread records.
    pub(super) fn records(&self) -> bool {
        self.recorded(|_| ()).is_some()
    }

    /// Launches a kernel for activations of `dtype`; does nothing if the launch is empty.
    pub(super) fn launch(
        &self,
        kernel: Kernel,
        dtype: DType,
        launch: Launch,
        args: &[Arg],
    ) -> Result<()> {
        if !check(kernel, launch, args)? {
            return Ok(());
        }
        let kept = |recording: &mut Recording| {
            let args = args.iter().map(Kept::of).collect();
            recording.calls.push(Call::Launch { kernel, dtype, launch, args });
        };
        match self.recorded(kept) {
            Some(()) => Ok(()),
            None => self.driver.queue(kernel, dtype, launch, args),
        }
    }

    /// Returns `x w` in `dtype`, f32 or the dtype of the operands, for `x: (rows, k)` and `w: (k,
    /// n)`, which is contiguous or the transpose of a contiguous tensor.
    pub(super) fn product(&self, x: &Tensor, w: &Tensor, dtype: DType) -> Result<Tensor> {
        let y = self.unwritten((x.dim(0)?, w.dim(1)?), dtype, x.device())?;
        self.multiply(x, w, &y, 0)?;
        Ok(y)
    }

    /// [`Self::product`] into the columns from `first` on of `y`.
    pub(super) fn multiply(&self, x: &Tensor, w: &Tensor, y: &Tensor, first: usize) -> Result<()> {
        let ((rows, k), (inputs, n)) = (x.dims2()?, w.dims2()?);
        let (result_rows, columns) = y.dims2()?;
        if k != inputs || rows != result_rows || first + n > columns {
            return Err(Error::Input(format!(
                "a product of {:?} and {:?} does not fit the columns from {first} on of {:?}",
                x.shape(),
                w.shape(),
                y.shape()
            )));
        }
        let operands = x.dtype() == w.dtype() && [x.dtype(), DType::F32].contains(&y.dtype());
        if !operands || !y.is_contiguous() || !(w.is_contiguous() || w.t()?.is_contiguous()) {
            return Err(Error::Input("a product needs contiguous operands of one dtype".into()));
        }
        if rows == 0 {
            return Ok(());
        }
        let (x, w, y) = (x.contiguous()?, w.clone(), y.clone());
        let mut call = Some(Call::Product { x, w, y, first });
        let kept = |recording: &mut Recording| recording.calls.extend(call.take());
        self.recorded(kept);
        match call {
            Some(Call::Product { x, w, y, .. }) => self.driver.multiply(&x, &w, &y, first),
            _ => Ok(()),
        }
    }

    /// Returns a tensor for a call that writes all elements. In a recording, it may be the result
    /// of an earlier stage.
    pub(super) fn unwritten(
        &self,
        shape: impl Into<Shape>,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let shape = shape.into();
        let reused = self.recorded(|recording| recording.current.take(&shape, dtype));
        if let Some(reused) = reused.transpose()?.flatten() {
            return Ok(reused);
        }
        let new = super::launch::unwritten(shape, dtype, device)?;
        self.recorded(|recording| recording.current.put(&new));
        Ok(new)
    }

    /// Ends a stage of this thread's recording: the next stage reads results of this stage, but not
    /// of earlier ones.
    pub(super) fn end_stage(&self) {
        self.recorded(|recording| {
            std::mem::swap(&mut recording.current, &mut recording.previous);
            recording.current.used.fill(false);
        });
    }

    /// Records the calls of `work` on this thread, without making them.
    pub(super) fn record<R, E>(
        &self,
        work: impl FnOnce() -> std::result::Result<R, E>,
    ) -> std::result::Result<(R, Vec<Call>), E> {
        let thread = thread::current().id();
        self.recordings().insert(thread, Recording::default());
        self.recording.fetch_add(1, Ordering::Relaxed);
        // Ends the recording also if `work` panics.
        struct End<'a>(&'a Stream, ThreadId);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                if self.0.recordings().remove(&self.1).is_some() {
                    self.0.recording.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
        let end = End(self, thread);
        let result = work()?;
        let calls = self.recorded(|recording| std::mem::take(&mut recording.calls));
        drop(end);
        Ok((result, calls.unwrap_or_default()))
    }

    /// Prepares recorded calls to be repeated.
    pub(super) fn graph(&self, calls: Vec<Call>) -> Result<Box<dyn Graph>> {
        Ok(match self.driver.graph(&calls)? {
            Some(graph) => graph,
            None => Box::new(Replay { driver: Arc::clone(&self.driver), calls }),
        })
    }
}

/// Recorded calls that the host makes again.
#[derive(Debug)]
struct Replay {
    driver: Arc<dyn Driver>,
    calls: Vec<Call>,
}

impl Graph for Replay {
    fn launch(&self, rows: &[Tensor]) -> Result<()> {
        self.calls.iter().try_for_each(|call| match call {
            Call::Launch { kernel, dtype, launch, args } => {
                let args: Vec<Arg> = args.iter().map(|kept| kept.arg(rows)).collect();
                self.driver.queue(*kernel, *dtype, *launch, &args)
            }
            Call::Product { x, w, y, first } => self.driver.multiply(x, w, y, *first),
        })
    }
}
