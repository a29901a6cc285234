//! `glta gptq quantize`: makes a GPTQ checkpoint from another checkpoint and calibration text.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use glta_llm::{QuantizeEvent, QuantizeOptions, Tokenizer, quantize_with};

use super::model::ModelArgs;
use crate::Result;
use crate::progress::Reporter;

/// Flags of `glta gptq quantize`.
#[derive(Debug, Clone, Args)]
pub(super) struct QuantizeArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Number of bits per weight: 2, 3, 4 or 8.
    #[arg(long, default_value_t = 4, help_heading = "Format")]
    bits: u32,
    /// Number of inputs that share a scale; -1 means all inputs.
    #[arg(long, default_value_t = 128, allow_hyphen_values = true, help_heading = "Format")]
    group_size: i64,
    /// Quantise inputs in descending order of their activations (act-order).
    #[arg(long, help_heading = "Format")]
    desc_act: bool,
    /// Use a zero point per group instead of the middle of the range.
    #[arg(long, help_heading = "Format")]
    asym: bool,
    /// Fraction of the mean diagonal of the Hessian that is added to the diagonal.
    #[arg(long, default_value_t = 0.05, help_heading = "Format")]
    damp: f64,
    /// File of plain text for the calibration, similar to the model's inputs.
    #[arg(long, help_heading = "Calibration")]
    calibration: PathBuf,
    /// Number of tokens per calibration text.
    #[arg(long, default_value_t = 256, value_parser = at_least_one, help_heading = "Calibration")]
    sequence_length: usize,
    /// Number of calibration texts, evenly spread over the file.
    #[arg(long, default_value_t = 32, value_parser = at_least_one, help_heading = "Calibration")]
    sequences: usize,
    /// Folder for the new checkpoint.
    #[arg(long, help_heading = "Output")]
    out: PathBuf,
}

impl QuantizeArgs {
    fn options(&self) -> Result<QuantizeOptions> {
        let group_size = match self.group_size {
            -1 => None,
            size => {
                Some(usize::try_from(size).map_err(|_| "--group-size: -1 or a positive number")?)
            }
        };
        Ok(QuantizeOptions {
            bits: self.bits,
            group_size,
            desc_act: self.desc_act,
            sym: !self.asym,
            damp_percent: self.damp,
        })
    }
}

pub(super) fn quantize_checkpoint(args: &QuantizeArgs) -> Result<()> {
    let options = args.options()?;
    let dir = args.model.dir()?;
    let tokenizer = Tokenizer::load(&dir)?;
    let text = std::fs::read_to_string(&args.calibration)
        .map_err(|e| format!("--calibration {}: {e}", args.calibration.display()))?;
    let ids = tokenizer.encode(&text, false)?;
    let calibration = excerpts(&ids, args.sequences, args.sequence_length)
        .map_err(|e| format!("--calibration {}: {e}", args.calibration.display()))?;
    let start = Instant::now();
    let mut reporter = Reporter::new(args.model.quiet);
    quantize_with(&dir, &calibration, &options, &args.out, &mut |event: &QuantizeEvent| {
        let (layer, layers) = (event.layer + 1, event.layers);
        reporter.say(&format!(
            "layer {layer:>2} of {layers} {:<18} relative squared error {:.5}",
            event.module, event.relative_error
        ));
        reporter.advance("quantising", event.layer as u64, layers as u64, "layers")
    })?;
    reporter.finish();
    let (count, length) = (calibration.len(), calibration.first().map_or(0, Vec::len));
    writeln!(
        std::io::stdout().lock(),
        "wrote {} in {:.0} s ({count} texts of {length} tokens)",
        args.out.display(),
        start.elapsed().as_secs_f64()
    )?;
    Ok(())
}

fn at_least_one(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1".into()),
        Ok(number) => Ok(number),
        Err(e) => Err(format!("{e}")),
    }
}

/// Returns `count` excerpts of `length` tokens, evenly spread over `ids`, without overlap.
fn excerpts(
    ids: &[u32],
    count: usize,
    length: usize,
) -> std::result::Result<Vec<Vec<u32>>, String> {
    let needed = count.saturating_mul(length);
    if ids.len() < needed {
        return Err(format!(
            "the text has {} tokens, but {count} texts of {length} tokens need {needed}: give a \
             longer one, or ask for less with --sequences and --sequence-length",
            ids.len()
        ));
    }
    let spacing = ids.len() / count;
    Ok((0..count).map(|n| ids[n * spacing..n * spacing + length].to_vec()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpts_are_spread_evenly_and_a_short_text_is_refused() {
        let ids: Vec<u32> = (0..10).collect();
        assert_eq!(excerpts(&ids, 2, 3).unwrap(), [vec![0, 1, 2], vec![5, 6, 7]]);
        assert_eq!(excerpts(&ids, 1, 10).unwrap(), std::slice::from_ref(&ids));
        for (count, length) in [(3, 4), (1, 11), (usize::MAX, 2)] {
            let message = excerpts(&ids, count, length).unwrap_err();
            assert!(message.contains("10 tokens") && message.contains("--sequences"), "{message}");
        }
        assert!(at_least_one("0").is_err() && at_least_one("x").is_err());
        assert_eq!(at_least_one("7"), Ok(7));
    }
}
