//! Hidden states of a GPTQ LLaMA: vectors of texts, and the similarity of texts.
//!
//! ```text
//! cargo run --release --example hidden_states -- [CHECKPOINT_DIR]
//! ```

#![allow(clippy::print_stdout)]

use glta::llm::{Device, ForwardOptions, Llama, LlamaOptions, Tokenizer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/quickstart/llm");
    let dir = std::env::args().nth(1).unwrap_or_else(|| own.to_owned());
    let llama = Llama::load(&dir, &LlamaOptions::default(), &Device::Cpu)?;
    let tokenizer = Tokenizer::load(&dir)?;
    let config = llama.config();
    println!("{} layers, hidden size {}", config.num_hidden_layers, config.hidden_size);

    // After the last layer and the final norm: (batch, seq, hidden).
    let ids = tokenizer.encode("Green tea from the mountains", true)?;
    let embeds = llama.embed(&ids)?.unsqueeze(0)?;
    let states = llama.hidden_states(&embeds, &[ids.len()], &ForwardOptions::default())?;
    println!("hidden states {:?}", states.dims());

    // After an early layer the mean over the tokens is a cheap text vector.
    let vector = |text: &str| -> Result<Vec<f32>, Box<dyn std::error::Error>> {
        let ids = tokenizer.encode(text, true)?;
        let layer = config.num_hidden_layers.min(2);
        Ok(llama
            .layer_hidden_states(&ids, layer)?
            .narrow(0, 1, ids.len() - 1)?
            .mean(0)?
            .to_vec1()?)
    };
    let tea = vector("Green tea from the mountains")?;
    for text in ["Black tea from the hills", "Oak table with four legs"] {
        let other = vector(text)?;
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let cosine = dot(&tea, &other) / (dot(&tea, &tea) * dot(&other, &other)).sqrt();
        println!("{cosine:.3} {text}");
    }
    Ok(())
}
