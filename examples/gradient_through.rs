//! A gradient through frozen, quantised layers: a soft token learns to make the language model
//! answer with a given word. The weights of the model do not change.
//!
//! ```text
//! cargo run --release --example gradient_through
//! ```

#![allow(clippy::print_stdout)]

use candle_core::{Tensor, Var};
use candle_nn::{loss::cross_entropy, ops::softmax};
use glta::llm::{Device, ForwardOptions, Llama, LlamaOptions, Tokenizer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/quickstart/llm");
    let llama = Llama::load(dir, &LlamaOptions::default(), &Device::Cpu)?;
    let tokenizer = Tokenizer::load(dir)?;
    let prompt = llama.embed(&tokenizer.encode("A customer has bought", true)?)?;
    let wanted = tokenizer.encode(" tea", false)?[0];
    let target = Tensor::new(&[wanted], &Device::Cpu)?;

    // One input embedding after the prompt that belongs to no word: (1, hidden).
    let soft = Var::from_tensor(&(prompt.narrow(0, 0, 1)? * 0.0)?)?;
    for step in 0..=40 {
        let embeds = Tensor::cat(&[&prompt, soft.as_tensor()], 0)?.unsqueeze(0)?;
        let length = embeds.dim(1)?;
        let states = llama.hidden_states(&embeds, &[length], &ForwardOptions::default())?;
        let logits = llama.logits(&states.squeeze(0)?.narrow(0, length - 1, 1)?)?;
        let loss = cross_entropy(&logits, &target)?;
        if step % 10 == 0 {
            let chance = softmax(&logits, 1)?.squeeze(0)?.get(wanted as usize)?;
            println!("step {step:>2}: probability {:.4}", chance.to_scalar::<f32>()?);
        }
        // From the loss through every layer to the soft token.
        let gradients = loss.backward()?;
        let gradient = gradients.get(&soft).ok_or("no gradient reached the soft token")?;
        let length = gradient.sqr()?.sum_all()?.sqrt()?.to_scalar::<f32>()?;
        let step = (gradient * f64::from(0.05 * llama.embedding_rms() * 10.0 / length))?;
        soft.set(&(soft.as_tensor() - step)?)?;
    }
    Ok(())
}
