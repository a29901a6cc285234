//! `quantize`: a GPTQ checkpoint from another checkpoint and calibration text.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use glta_llm::{QuantizeEvent, QuantizeOptions, Tokenizer, quantize_with};

use super::model::ModelArgs;
use crate::Result;
use crate::progress::Reporter;

/// Flags of `quantize`.
#[derive(Debug, Clone, Args)]
pub(super) struct QuantizeArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Bits per weight: 2, 3, 4 or 8.
    #[arg(long, default_value_t = 4, help_heading = "Format")]
    bits: u32,
    /// Number of inputs that share a scale; -1 for all.
    #[arg(long, default_value_t = 128, allow_hyphen_values = true, help_heading = "Format")]
    group_size: i64,
    /// Quantise inputs in the order of their activations (act-order).
    #[arg(long, help_heading = "Format")]
    desc_act: bool,
    /// Use a zero point per group instead of the middle of the range.
    #[arg(long, help_heading = "Format")]
    asym: bool,
    /// Share of the mean diagonal of the Hessian that is added to the diagonal.
    #[arg(long, default_value_t = 0.05, help_heading = "Format")]
    damp: f64,
    /// Plain text that is similar to the model's inputs.
    #[arg(long, help_heading = "Calibration")]
    calibration: PathBuf,
    /// Tokens per calibration text.
    #[arg(long, default_value_t = 256, help_heading = "Calibration")]
    sequence_length: usize,
    /// Number of calibration texts, evenly spread over the file.
    #[arg(long, default_value_t = 32, help_heading = "Calibration")]
    sequences: usize,
    /// Folder to write.
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
    let dir = args.model.dir()?;
    let tokenizer = Tokenizer::load(&dir)?;
    let text = std::fs::read_to_string(&args.calibration)
        .map_err(|e| format!("{}: {e}", args.calibration.display()))?;
    let ids = tokenizer.encode(&text, false)?;
    let calibration = excerpts(&ids, args.sequences, args.sequence_length);
    let options = args.options()?;
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

/// At most `count` excerpts of `length` tokens, evenly spread over `ids`; one shorter excerpt if
/// there are fewer tokens.
fn excerpts(ids: &[u32], count: usize, length: usize) -> Vec<Vec<u32>> {
    let length = length.clamp(1, ids.len().max(1));
    let count = count.clamp(1, (ids.len() / length).max(1));
    let spacing = ids.len() / count;
    let excerpt = |n: usize| ids[n * spacing..(n * spacing + length).min(ids.len())].to_vec();
    (0..count).map(excerpt).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpts_are_spread_evenly_and_as_many_as_fit() {
        let ids: Vec<u32> = (0..10).collect();
        assert_eq!(excerpts(&ids, 2, 3), [vec![0, 1, 2], vec![5, 6, 7]]);
        assert_eq!(excerpts(&ids, 32, 4), [vec![0, 1, 2, 3], vec![5, 6, 7, 8]]);
        assert_eq!(excerpts(&ids, 5, 100), std::slice::from_ref(&ids));
        assert_eq!(excerpts(&ids, 0, 0), [vec![0]]);
        assert_eq!(excerpts(&[], 4, 8), [Vec::<u32>::new()]);
    }
}
