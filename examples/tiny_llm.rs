//! Makes the small GPTQ LLaMA of the quickstart: trains it on texts of generated
//! shops and quantises it to 4 bits. The same machine makes the same bytes.
//!
//! ```text
//! cargo run --release --example tiny_llm -- --out examples/quickstart/llm
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr)]

// This example needs only a part of it.
#[allow(dead_code)]
mod common;
#[path = "tiny_llm/model.rs"]
mod model;
#[path = "tiny_llm/text.rs"]
mod text;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use candle_core::{Device, Tensor};
use candle_nn::optim::{AdamW, Optimizer, ParamsAdamW};
use clap::Parser;
use common::Result;
use common::progress::Reporter;
use glta::llm::{QuantizeOptions, quantize};
use model::Model;

/// Train and quantise the quickstart's language model.
#[derive(Debug, Parser)]
#[command(name = "tiny_llm", version)]
struct Args {
    /// Folder for the checkpoint
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Steps of training, each on 16 texts of 96 tokens
    #[arg(long, default_value_t = 800, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// Seed of weights and texts
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// No progress, only the result
    #[arg(long)]
    quiet: bool,
}

const VOCAB: usize = 640;
const LENGTH: usize = 96;
const BATCH: usize = 16;
const PEAK_RATE: f64 = 4e-3;

fn main() -> ExitCode {
    let args = Args::parse();
    common::exit(|| {
        let plain = tempfile::tempdir()?;
        let mut reporter = Reporter::new(args.quiet);
        let texts = text::texts(12, args.seed)?;
        let tokenizer = text::tokenizer(&texts, VOCAB)?;
        // One after the other, each between its beginning and its end.
        let mut ids: Vec<u32> = Vec::new();
        for text in &texts {
            let encoding =
                tokenizer.encode_fast(text.as_str(), false).map_err(|e| e.to_string())?;
            ids.push(1);
            ids.extend(encoding.get_ids());
            ids.push(2);
        }
        let (last, model) = train(&ids, &args, &mut reporter)?;
        write(plain.path(), &model, &tokenizer)?;
        let calibration: Vec<Vec<u32>> =
            ids.chunks_exact(LENGTH).take(64).map(<[u32]>::to_vec).collect();
        let options = QuantizeOptions { group_size: Some(64), ..QuantizeOptions::default() };
        quantize(plain.path(), &calibration, &options, &args.out, &mut |event| {
            reporter.advance(
                "quantising",
                event.layer as u64 + 1,
                event.layers as u64,
                event.module,
            )
        })?;
        reporter.finish();
        println!("{}: loss {last:.3} in the last steps, 4-bit weights", args.out.display());
        Ok(())
    })
}

/// AdamW with a warm-up and a cosine; the mean loss of the last tenth of the steps.
fn train(ids: &[u32], args: &Args, reporter: &mut Reporter) -> Result<(f64, Model)> {
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
        let first = step as usize * BATCH;
        let batch: Vec<u32> =
            (first..first + BATCH).flat_map(|n| rows[n % rows.len()]).copied().collect();
        let batch = Tensor::from_vec(batch, (BATCH, LENGTH + 1), &Device::Cpu)?;
        let done = step as f64 / args.steps as f64;
        let rate = (done / 0.05).min(1.0)
            * (0.05 + 0.95 * (1.0 + (std::f64::consts::PI * done).cos()) / 2.0);
        optimizer.set_learning_rate(PEAK_RATE * rate);
        let loss = model.loss(&batch)?;
        optimizer.backward_step(&loss)?;
        let loss = f64::from(loss.to_scalar::<f32>()?);
        if done >= 0.9 || step + 1 == args.steps {
            sum += loss;
            count += 1.0;
        }
        if reporter.advance("training", step + 1, args.steps, &format!("loss {loss:.3}")).is_break()
        {
            return Err("stopped".into());
        }
    }
    Ok((sum / count, model))
}

/// A plain checkpoint in halves.
fn write(dir: &Path, model: &Model, tokenizer: &tokenizers::Tokenizer) -> Result<()> {
    let config = model::config(VOCAB, 1, 2);
    std::fs::write(dir.join("config.json"), serde_json::to_string_pretty(&config)?)?;
    candle_core::safetensors::save(&model::halves(model)?, dir.join("model.safetensors"))?;
    tokenizer.save(dir.join("tokenizer.json"), false).map_err(|e| e.to_string())?;
    Ok(())
}
