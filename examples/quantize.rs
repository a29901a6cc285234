//! Quantises a LLaMA checkpoint to 4 bits with GPTQ and compares both.
//!
//! ```text
//! cargo run --release --example quantize -- [CHECKPOINT_DIR]
//! ```

#![allow(clippy::print_stdout)]

use glta::llm::{Device, Llama, LlamaOptions, QuantizeOptions, Tokenizer, quantize};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/quickstart/llm");
    let dir = std::env::args().nth(1).unwrap_or_else(|| own.to_owned());
    let tokenizer = Tokenizer::load(&dir)?;

    // The rounding is optimised for this text, which should resemble the model's inputs.
    let text = "A customer has green tea from the mountains and an oak table with four legs. ";
    let ids = tokenizer.encode(&text.repeat(20), true)?;
    let calibration: Vec<Vec<u32>> = ids.chunks_exact(64).map(<[u32]>::to_vec).collect();

    let out = tempfile::tempdir()?;
    let options = QuantizeOptions { bits: 3, group_size: Some(32), ..QuantizeOptions::default() };
    quantize(&dir, &calibration, &options, out.path())?;

    let before = Llama::load(&dir, &LlamaOptions::default(), &Device::Cpu)?;
    let after = Llama::load(out.path(), &LlamaOptions::default(), &Device::Cpu)?;
    println!("{} bytes before, {} after", before.resident_bytes(), after.resident_bytes());
    let last = before.config().num_hidden_layers;
    let (a, b) = (
        before.layer_hidden_states(&ids[..64], last)?,
        after.layer_hidden_states(&ids[..64], last)?,
    );
    let norm = |t: &glta::llm::Tensor| t.sqr()?.sum_all()?.sqrt()?.to_scalar::<f32>();
    println!("relative difference of the last layer {:.3}", norm(&(&a - &b)?)? / norm(&a)?);
    Ok(())
}
