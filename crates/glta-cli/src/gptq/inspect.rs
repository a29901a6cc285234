//! `glta gptq inspect`: prints the configuration, size and load time of a checkpoint.

use std::time::Instant;

use candle_core::Device;
use glta_llm::{Llama, LlamaOptions};

use super::model::ModelArgs;
use crate::Result;
use crate::output::outln;

pub(super) fn inspect(args: &ModelArgs) -> Result<()> {
    let dir = args.dir()?;
    let start = Instant::now();
    let model = Llama::load(&dir, &LlamaOptions::default(), &Device::Cpu)?;
    let seconds = start.elapsed().as_secs_f64();
    outln!("{}", serde_json::to_string_pretty(model.config())?);
    outln!(
        "{:.1} MB in memory, loaded in {seconds:.2} s, kernels for {}",
        model.resident_bytes() as f64 / 1e6,
        model.simd_level().map_or_else(|| "a GPU".into(), |level| format!("{level:?}"))
    );
    Ok(())
}
