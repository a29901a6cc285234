//! Looks into, checks, runs and makes GPTQ checkpoints of LLaMA models.
//!
//! ```text
//! cargo run --release --example gptq -- inspect  --model DIR
//! cargo run --release --example gptq -- verify   --model DIR
//! cargo run --release --example gptq -- generate --model DIR --prompt "Once upon a time"
//! cargo run --release --example gptq -- quantize --model DIR --calibration FILE --out DIR
//! ```
//!
//! In place of DIR, `--model` takes an id on the Hugging Face hub.
#![allow(clippy::print_stdout, clippy::print_stderr)]

// This example needs only a part of it.
#[allow(dead_code)]
mod common;

use candle_core::{DType, Device, Tensor, Var, safetensors};
use clap::{Args, Parser, Subcommand};
use common::args::device;
use common::fetch::checkpoint;
use common::interrupt;
use common::progress::Reporter;
use glta::llm::{
    ForwardOptions, GenerateOptions, Llama, LlamaOptions, Precision, QuantizeOptions, Tokenizer,
    quantize,
};
use std::collections::HashMap;
use std::error::Error;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Looks into, checks, runs and makes GPTQ checkpoints of LLaMA models.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the configuration and the size in memory.
    Inspect(Model),
    /// Compare with `reference.safetensors` in the model's folder: one line of
    /// JSON, exit code 1 above tolerance.
    Verify(Run),
    /// Continue prompts.
    Generate(Generate),
    /// Quantise a checkpoint, plain or already quantised.
    Quantize(Quantize),
}

#[derive(Args)]
struct Model {
    /// Folder with config.json and safetensors weights, or the id of one on the
    /// hub, owner/name or owner/name@revision.
    #[arg(long, value_name = "DIR_OR_HUB_ID")]
    model: String,
    /// No progress, only the result.
    #[arg(long)]
    quiet: bool,
}

impl Model {
    fn dir(&self) -> common::Result<PathBuf> {
        checkpoint(&self.model, &mut Reporter::new(self.quiet))
            .map_err(|e| format!("--model {e}").into())
    }
}

/// A model and its arithmetic.
#[derive(Args)]
struct Run {
    #[command(flatten)]
    model: Model,
    /// Arithmetic of the products with quantised weights: f32 or bf16, and on a GPU f16.
    #[arg(long, default_value = "f32", value_parser = precision)]
    precision: Precision,
    /// Where it runs: cpu, or cuda[:N] in a build with the feature cuda.
    #[arg(long, default_value = "cpu")]
    device: String,
}

fn precision(name: &str) -> Result<Precision, String> {
    match name {
        "f32" => Ok(Precision::F32),
        "bf16" => Ok(Precision::Bf16),
        "f16" => Ok(Precision::F16),
        _ => Err("expected f32, bf16 or f16".into()),
    }
}

impl Run {
    fn load(&self, dir: &Path) -> common::Result<Llama> {
        let options = LlamaOptions { precision: self.precision, ..Default::default() };
        Ok(Llama::load(dir, &options, &device(&self.device)?)?)
    }
}

#[derive(Args)]
struct Generate {
    #[command(flatten)]
    run: Run,
    /// Text to continue; may be repeated, all run as one batch.
    #[arg(long, required = true)]
    prompt: Vec<String>,
    /// Most tokens per prompt.
    #[arg(long, default_value_t = 64)]
    max_new_tokens: usize,
    /// 0 takes the likeliest token.
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// Draw from the k likeliest tokens; 0 for all.
    #[arg(long, default_value_t = 0)]
    top_k: usize,
    /// Draw from the likeliest tokens of this probability together.
    #[arg(long, default_value_t = 1.0)]
    top_p: f32,
    /// Push down tokens seen before; 1 for not.
    #[arg(long, default_value_t = 1.0)]
    repetition_penalty: f32,
    /// Text that ends an answer; may be repeated.
    #[arg(long)]
    stop: Vec<String>,
    /// Seed of the draws.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Args)]
struct Quantize {
    #[command(flatten)]
    model: Model,
    /// 2, 3, 4 or 8.
    #[arg(long, default_value_t = 4)]
    bits: u32,
    /// Inputs that share a scale; -1 for all.
    #[arg(long, default_value_t = 128, allow_hyphen_values = true)]
    group_size: i64,
    /// Round in the order of activations across groups (act-order).
    #[arg(long)]
    desc_act: bool,
    /// A zero point per group instead of the middle of the range.
    #[arg(long)]
    asym: bool,
    /// Share of the Hessian's mean diagonal that is added to it.
    #[arg(long, default_value_t = 0.05)]
    damp: f64,
    /// Plain text like that the model will see.
    #[arg(long)]
    calibration: PathBuf,
    /// Tokens per calibration text.
    #[arg(long, default_value_t = 256)]
    sequence_length: usize,
    /// Calibration texts, evenly spread over the file.
    #[arg(long, default_value_t = 32)]
    sequences: usize,
    /// Folder to write.
    #[arg(long)]
    out: PathBuf,
}

fn main() -> ExitCode {
    interrupt::listen();
    let result = match Cli::parse().command {
        Command::Inspect(args) => inspect(&args),
        Command::Verify(args) => verify(&args),
        Command::Generate(args) => generate(&args),
        Command::Quantize(args) => quantize_checkpoint(&args),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => common::failed(&*error, 2).into(),
    }
}

type Outcome = Result<bool, Box<dyn Error>>;

fn inspect(args: &Model) -> Outcome {
    let dir = args.dir()?;
    let start = Instant::now();
    let model = Llama::load(&dir, &LlamaOptions::default(), &Device::Cpu)?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{}", serde_json::to_string_pretty(model.config())?);
    println!(
        "{:.1} MB in memory, loaded in {seconds:.2} s, kernels for {}",
        model.resident_bytes() as f64 / 1e6,
        model.simd_level().map_or_else(|| "a GPU".into(), |level| format!("{level:?}"))
    );
    Ok(true)
}

fn max_abs_err(got: &Tensor, expected: &Tensor) -> Result<f64, candle_core::Error> {
    let difference = (got - expected)?.abs()?.flatten_all()?.max(0)?;
    Ok(f64::from(difference.to_scalar::<f32>()?))
}

fn relative_err(got: &Tensor, expected: &Tensor) -> Result<f64, candle_core::Error> {
    let norm = |t: &Tensor| t.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>();
    Ok((norm(&(got - expected)?)? / norm(expected)?).sqrt())
}

/// Beyond these a checkpoint was read wrongly, or the arithmetic is not f32.
/// Models with large states exceed the absolute bound by rounding alone, in any
/// order of summation; for them the relative one (L2) counts.
const MAX_ABS_ERR: f64 = 1e-4;
const MAX_REL_ERR: f64 = 1e-5;
const MAX_GRAD_REL_ERR: f64 = 1e-4;
/// What rounding to 16 bits may do to any of them; greedy tokens may then differ.
const MAX_16_BIT_REL_ERR: f64 = 5e-2;

/// Largest errors seen so far.
#[derive(Default)]
struct Worst {
    abs: f64,
    rel: f64,
}

impl Worst {
    fn note(&mut self, got: &Tensor, expected: &Tensor) -> Result<(), candle_core::Error> {
        self.abs = self.abs.max(max_abs_err(got, expected)?);
        self.rel = self.rel.max(relative_err(got, expected)?);
        Ok(())
    }
    fn is_fine(&self) -> bool {
        self.abs <= MAX_ABS_ERR || self.rel <= MAX_REL_ERR
    }
}

fn verify(args: &Run) -> Outcome {
    let dir = args.model.dir()?;
    let model = args.load(&dir)?;
    let reference = safetensors::load(dir.join("reference.safetensors"), model.device())?;
    let need = |name: &str| {
        reference.get(name).ok_or_else(|| format!("reference.safetensors has no tensor `{name}`"))
    };
    let ids = |tensor: &Tensor| -> Result<Vec<u32>, candle_core::Error> {
        tensor.to_dtype(DType::U32)?.to_vec1()
    };
    let (mut hidden_err, mut logits_err) = (Worst::default(), Worst::default());
    let mut greedy_equal = true;
    let mut prompts: HashMap<usize, Vec<u32>> = HashMap::new();
    for p in 0.. {
        let Some(prompt) = reference.get(&format!("p{p}.input_ids")) else {
            break;
        };
        let prompt = ids(prompt)?;
        let embeds = model.embed(&prompt)?.unsqueeze(0)?;
        let hidden = model
            .hidden_states(&embeds, &[prompt.len()], &ForwardOptions::default())?
            .squeeze(0)?;
        hidden_err.note(&hidden, need(&format!("p{p}.hidden_states"))?)?;
        // Logits of all positions, or of the last one only.
        let logits = need(&format!("p{p}.logits"))?;
        let rows = logits.dim(0)?;
        let last = hidden.narrow(0, prompt.len() - rows, rows)?;
        logits_err.note(&model.logits(&last)?, logits)?;
        if let Some(greedy) = reference.get(&format!("p{p}.greedy_ids")) {
            let expected = ids(greedy)?;
            let options = GenerateOptions {
                max_new_tokens: expected.len(),
                ignore_eos: true,
                ..Default::default()
            };
            let prompts = std::slice::from_ref(&prompt);
            let text = model.generate(prompts, &options, &mut |_| ControlFlow::Continue(()))?;
            greedy_equal &= text[0] == expected;
        }
        prompts.insert(p, prompt);
    }
    if prompts.is_empty() {
        return Err("reference.safetensors has no prompts (p0.input_ids)".into());
    }
    let embeds = Var::from_tensor(&need("grad.inputs_embeds")?.unsqueeze(0)?)?;
    let length = embeds.dim(1)?;
    let hidden = model.hidden_states(&embeds, &[length], &ForwardOptions::default())?;
    let loss = (hidden * need("grad.cotangent")?.unsqueeze(0)?)?.sum_all()?;
    let grads = loss.backward()?;
    let grad = grads.get(&embeds).ok_or("no gradient at the embeddings")?;
    let grad_err = relative_err(grad, &need("grad.d_inputs_embeds")?.unsqueeze(0)?)?;
    println!(
        "{}",
        serde_json::json!({
            "hidden_max_abs_err": hidden_err.abs,
            "hidden_rel_err": hidden_err.rel,
            "logits_max_abs_err": logits_err.abs,
            "logits_rel_err": logits_err.rel,
            "input_grad_rel_err": grad_err,
            // True as well where the reference has no continuations.
            "greedy_tokens_equal": greedy_equal,
        })
    );
    if args.precision != Precision::F32 {
        return Ok(hidden_err.rel.max(logits_err.rel).max(grad_err) <= MAX_16_BIT_REL_ERR);
    }
    Ok(hidden_err.is_fine() && logits_err.is_fine() && grad_err <= MAX_GRAD_REL_ERR && greedy_equal)
}

fn generate(args: &Generate) -> Outcome {
    let dir = args.run.model.dir()?;
    let model = args.run.load(&dir)?;
    let tokenizer = Tokenizer::load(&dir)?;
    let options = GenerateOptions {
        max_new_tokens: args.max_new_tokens,
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        repetition_penalty: args.repetition_penalty,
        stop: args.stop.clone(),
        seed: args.seed,
        ..Default::default()
    };
    let start = Instant::now();
    let mut tokens = 0;
    let texts = model.generate_text(&tokenizer, &args.prompt, &options, &mut |event| {
        tokens += usize::from(event.token.is_some());
        interrupt::answer()
    })?;
    let seconds = start.elapsed().as_secs_f64();
    for (prompt, text) in args.prompt.iter().zip(texts) {
        println!("{prompt}{text}\n");
    }
    if !args.run.model.quiet {
        eprintln!("{tokens} tokens in {seconds:.2} s: {:.1} tokens/s", tokens as f64 / seconds);
    }
    Ok(true)
}

fn quantize_checkpoint(args: &Quantize) -> Outcome {
    let dir = args.model.dir()?;
    let tokenizer = Tokenizer::load(&dir)?;
    let text = std::fs::read_to_string(&args.calibration)
        .map_err(|e| format!("{}: {e}", args.calibration.display()))?;
    let ids = tokenizer.encode(&text, false)?;
    let length = args.sequence_length.clamp(1, ids.len().max(1));
    let count = args.sequences.clamp(1, (ids.len() / length).max(1));
    let spacing = ids.len() / count;
    let calibration: Vec<Vec<u32>> = (0..count)
        .map(|i| ids[i * spacing..(i * spacing + length).min(ids.len())].to_vec())
        .collect();
    let options = QuantizeOptions {
        bits: args.bits,
        group_size: match args.group_size {
            -1 => None,
            size => {
                Some(usize::try_from(size).map_err(|_| "--group-size: -1 or a positive number")?)
            }
        },
        desc_act: args.desc_act,
        sym: !args.asym,
        damp_percent: args.damp,
    };
    let start = Instant::now();
    let mut reporter = Reporter::new(args.model.quiet);
    quantize(&dir, &calibration, &options, &args.out, &mut |event| {
        let (layer, layers) = (event.layer + 1, event.layers);
        reporter.say(&format!(
            "layer {layer:>2} of {layers} {:<18} relative squared error {:.5}",
            event.module, event.relative_error
        ));
        reporter.advance("quantising", event.layer as u64, layers as u64, "layers")
    })?;
    reporter.finish();
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "wrote {} in {:.0} s ({count} texts of {length} tokens)",
        args.out.display(),
        start.elapsed().as_secs_f64()
    )?;
    Ok(true)
}
