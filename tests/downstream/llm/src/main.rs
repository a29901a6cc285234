//! A GPTQ LLaMA continues a text: `llm CHECKPOINT_DIR TEXT`.

use glta_llm::{Device, GenerateOptions, Llama, LlamaOptions, Tokenizer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (dir, text) = args.next().zip(args.next()).ok_or("usage: llm CHECKPOINT_DIR TEXT")?;
    let llama = Llama::load(&dir, &LlamaOptions::default(), &Device::Cpu)?;
    let tokenizer = Tokenizer::load(&dir)?;
    let options = GenerateOptions { max_new_tokens: 20, ..GenerateOptions::default() };
    let more = llama.generate_text(&tokenizer, &[&text], &options)?;
    println!("{text}{}", more[0]);
    Ok(())
}
