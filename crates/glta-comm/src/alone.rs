#[cfg(feature = "tensor")]
use candle_core::Tensor;

use crate::{Communicator, Result};

/// The communicator of a job with a single rank.
///
/// ```
/// use glta_comm::{Alone, Communicator};
///
/// let mut values = [1.0, 2.0];
/// Alone.all_reduce(&mut values)?;
/// assert_eq!((Alone.size(), values), (1, [1.0, 2.0]));
/// # Ok::<(), glta_comm::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Communicator for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn all_reduce(&self, _: &mut [f64]) -> Result<()> {
        Ok(())
    }

    #[cfg(feature = "tensor")]
    fn all_reduce_tensor(&self, tensor: &Tensor) -> Result<Tensor> {
        Ok(tensor.clone())
    }

    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        Ok(vec![bytes.to_vec()])
    }

    fn barrier(&self) -> Result<()> {
        Ok(())
    }

    fn abort(&self, code: i32) -> ! {
        std::process::exit(code)
    }
}
