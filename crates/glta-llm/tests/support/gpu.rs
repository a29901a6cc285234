//! The GPU for tests that need one.
#![allow(unreachable_pub, clippy::panic)]

use candle_core::Device;

/// Returns the first GPU twice: with one stream per thread, and with one stream that threads share.
pub fn devices() -> [Device; 2] {
    [Device::new_cuda(0), Device::new_cuda_with_stream(0)].map(|device| {
        device.unwrap_or_else(|e| panic!("this test needs an NVIDIA GPU and its driver: {e}"))
    })
}
