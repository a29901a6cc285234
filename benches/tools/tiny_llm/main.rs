//! Creates the small GPTQ LLaMA of the quickstart: trains it on texts of generated shops and
//! quantises it to 4 bits. On one machine the result always has the same bytes.
//!
//! ```text
//! cargo run --release --example tiny_llm -- --out examples/quickstart/llm
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod model;
mod text;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use candle_core::{Device, Tensor};
use candle_nn::optim::{AdamW, Optimizer, ParamsAdamW};
use clap::Parser;
use glta_llm::{QuantizeOptions, quantize};
use model::Model;
use tokenizers::Tokenizer;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Train and quantise the quickstart's language model.
#[derive(Debug, Parser)]
#[command(name = "tiny_llm", version)]
struct Args {
    /// Folder for the checkpoint
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Training steps, each on 16 texts of 96 tokens
    #[arg(long, default_value_t = 800, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// Seed of weights and texts
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Print only the result
    #[arg(long)]
    quiet: bool,
}

const SHOPS: u64 = 12;
const VOCAB: usize = 640;
const LENGTH: usize = 96;
const BATCH: usize = 16;
const PEAK_RATE: f64 = 4e-3;
/// Texts that the quantiser calibrates on.
const CALIBRATION: usize = 64;

fn main() -> ExitCode {
    match make(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn make(args: &Args) -> Result<()> {
    let texts = text::texts(SHOPS, args.seed)?;
    let tokenizer = text::tokenizer(&texts, VOCAB)?;
    let ids = encode(&tokenizer, &texts)?;
    let (last, model) = train(&ids, args)?;
    let plain = tempfile::tempdir()?;
    write(plain.path(), &model, &tokenizer)?;
    let calibration: Vec<Vec<u32>> =
        ids.chunks_exact(LENGTH).take(CALIBRATION).map(<[u32]>::to_vec).collect();
    let options = QuantizeOptions { group_size: Some(64), ..QuantizeOptions::default() };
    quantize(plain.path(), &calibration, &options, &args.out)?;
    println!("{}: loss {last:.3} in the last steps, 4-bit weights", args.out.display());
    Ok(())
}

/// Returns the token ids of all texts, each between `<s>` and `</s>`.
fn encode(tokenizer: &Tokenizer, texts: &[String]) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    for text in texts {
        let encoding = tokenizer.encode_fast(text.as_str(), false).map_err(|e| e.to_string())?;
        ids.push(text::BEGINNING);
        ids.extend(encoding.get_ids());
        ids.push(text::END);
    }
    Ok(ids)
}

/// Trains with AdamW, a warm-up and a cosine schedule. Returns the mean loss of the last tenth of
/// the steps.
fn train(ids: &[u32], args: &Args) -> Result<(f64, Model)> {
    let model = Model::new(VOCAB, LENGTH, args.seed)?;
    let vars = model.weights.iter().map(|(_, var)| var.clone()).collect();
    let settings = ParamsAdamW { weight_decay: 0.01, beta2: 0.98, ..ParamsAdamW::default() };
    let mut optimizer = AdamW::new(vars, settings)?;
    let rows: Vec<&[u32]> = ids.windows(LENGTH + 1).step_by(LENGTH).collect();
    if rows.len() < BATCH {
        return Err("too little text".into());
    }
    let (mut sum, mut count) = (0.0, 0.0);
    for step in 0..args.steps {
        let done = step as f64 / args.steps as f64;
        optimizer.set_learning_rate(PEAK_RATE * schedule(done));
        let loss = model.loss(&batch(&rows, step)?)?;
        optimizer.backward_step(&loss)?;
        let loss = f64::from(loss.to_scalar::<f32>()?);
        if done >= 0.9 || step + 1 == args.steps {
            sum += loss;
            count += 1.0;
        }
        if !args.quiet && (step + 1) % 20 == 0 {
            eprintln!("step {} of {}: loss {loss:.3}", step + 1, args.steps);
        }
    }
    Ok((sum / count, model))
}

/// Fraction of the peak rate when the fraction `done` of the steps is done.
fn schedule(done: f64) -> f64 {
    (done / 0.05).min(1.0) * (0.05 + 0.95 * (1.0 + (std::f64::consts::PI * done).cos()) / 2.0)
}

/// The rows of a step, in order: `(BATCH, LENGTH + 1)`.
fn batch(rows: &[&[u32]], step: u64) -> Result<Tensor> {
    let first = step as usize * BATCH;
    let ids: Vec<u32> =
        (first..first + BATCH).flat_map(|n| rows[n % rows.len()]).copied().collect();
    Ok(Tensor::from_vec(ids, (BATCH, LENGTH + 1), &Device::Cpu)?)
}

/// Writes an unquantised checkpoint in f16.
fn write(dir: &Path, model: &Model, tokenizer: &Tokenizer) -> Result<()> {
    let config = model::config(VOCAB, text::BEGINNING, text::END);
    std::fs::write(dir.join("config.json"), serde_json::to_string_pretty(&config)?)?;
    candle_core::safetensors::save(&model::halves(model)?, dir.join("model.safetensors"))?;
    tokenizer.save(dir.join("tokenizer.json"), false).map_err(|e| e.to_string())?;
    Ok(())
}
