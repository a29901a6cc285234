//! Parses the value of `--device`.

use candle_core::Device;

use crate::Result;
use crate::ranks::place;

/// Returns the device that `--device` names: `cpu`, `cuda:N`, or `cuda`, which gives each rank on a
/// machine its own GPU. All threads share one stream per GPU, so one thread may load a model that
/// another thread runs.
///
/// # Errors
/// Returns an error if the name is unknown or the GPU does not exist.
pub fn device(name: &str) -> Result<Device> {
    let unknown = || format!("--device {name}: expected cpu, cuda or cuda:N");
    let n = match name.split_once(':') {
        None if name == "cpu" => return Ok(Device::Cpu),
        None if name == "cuda" => place(),
        Some(("cuda", n)) => n.parse().map_err(|_| unknown())?,
        _ => return Err(unknown().into()),
    };
    if !cfg!(feature = "cuda") {
        return Err(format!(
            "--device {name}: this program was built without CUDA; build it with \
             `--features cuda` (docs/cuda.md)"
        )
        .into());
    }
    Ok(Device::new_cuda_with_stream(n).map_err(|e| format!("--device {name}: {e}"))?)
}
