//! Writes a small random GPTQ LLaMA, to try the other examples without a
//! download: `cargo run --example tiny_llm -- DIR`.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::Path;
use std::process::ExitCode;

#[path = "../tests/tiny_llm/mod.rs"]
mod tiny_llm;

fn main() -> ExitCode {
    let Some(dir) = std::env::args().nth(1) else {
        eprintln!("usage: tiny_llm DIR");
        return ExitCode::FAILURE;
    };
    if let Err(error) = std::fs::create_dir_all(&dir) {
        eprintln!("error: {dir}: {error}");
        return ExitCode::FAILURE;
    }
    tiny_llm::write(Path::new(&dir));
    println!("{dir} holds a LLaMA of 2 layers, hidden size 64, 4-bit weights in groups of 32");
    ExitCode::SUCCESS
}
