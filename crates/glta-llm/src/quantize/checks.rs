//! Checks the options and the inputs of a quantisation before it starts, because a quantisation
//! takes hours for large models.

use std::path::Path;

use glta_kernels::{Host, Sequences};

use super::options::QuantizeOptions;
use crate::config::LlamaConfig;
use crate::error::{Error, Result};
use crate::load::Loader;

/// Returns an error if `out` is a file, is `dir` itself, or contains weights.
pub(super) fn check_output(dir: &Path, out: &Path) -> Result<()> {
    let refuse = |problem: String| {
        let folder = out.display();
        Err(Error::Input(format!("{folder}: {problem}; choose another folder to write to")))
    };
    if out.exists() && !out.is_dir() {
        return refuse("this is a file".into());
    }
    if let (Ok(a), Ok(b)) = (out.canonicalize(), dir.canonicalize())
        && a == b
    {
        return refuse("this is the folder of the model itself, which would be replaced".into());
    }
    let Ok(entries) = std::fs::read_dir(out) else { return Ok(()) };
    let weights = entries.flatten().find_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.ends_with(".safetensors").then_some(name)
    });
    match weights {
        Some(name) => refuse(format!("it holds the weights {name}, which would be replaced")),
        None => Ok(()),
    }
}

/// Checks all tensors before the first layer is quantised.
pub(super) fn check_tensors(loader: &Loader<'_, Host>, options: &QuantizeOptions) -> Result<()> {
    let c = loader.config;
    for i in 0..c.num_hidden_layers {
        for (module, n, k, bias) in linears(c, loader.biases()) {
            let prefix = loader.name(&format!("layers.{i}.{module}"));
            loader.expect_linear(&prefix, n, k, bias)?;
            check_words(&prefix, n, k, options.bits)?;
        }
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            loader.norm(&loader.name(&format!("layers.{i}.{norm}")))?;
        }
        loader.head_norms(i)?;
    }
    loader.expect_ends()?;
    loader.refuse_unused(c.num_hidden_layers)
}

/// Returns, for each linear layer, its name, its numbers of outputs and of inputs, and whether it
/// has a bias.
pub(super) fn linears(
    c: &LlamaConfig,
    [qkv_bias, o_bias, mlp_bias]: [bool; 3],
) -> [(&'static str, usize, usize, bool); 7] {
    let (hidden, inner) = (c.hidden_size, c.intermediate_size);
    let (queries, keys) = (c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim);
    [
        ("self_attn.q_proj", queries, hidden, qkv_bias),
        ("self_attn.k_proj", keys, hidden, qkv_bias),
        ("self_attn.v_proj", keys, hidden, qkv_bias),
        ("self_attn.o_proj", hidden, queries, o_bias),
        ("mlp.gate_proj", inner, hidden, mlp_bias),
        ("mlp.up_proj", inner, hidden, mlp_bias),
        ("mlp.down_proj", hidden, inner, mlp_bias),
    ]
}

pub(super) fn check_words(prefix: &str, n: usize, k: usize, bits: u32) -> Result<()> {
    let b = bits as usize;
    if (k * b).is_multiple_of(32) && (n * b).is_multiple_of(32) {
        return Ok(());
    }
    Err(Error::Input(format!(
        "`{prefix}`: {k} inputs and {n} outputs of {bits} bits do not fill whole 32-bit words"
    )))
}

/// Checks the calibration texts, and returns their token ids in one list, with the positions of the
/// tokens.
pub(super) fn packed(
    calibration: &[Vec<u32>],
    config: &LlamaConfig,
) -> Result<(Vec<u32>, Sequences)> {
    for (i, text) in calibration.iter().enumerate() {
        if text.is_empty() || text.len() > config.max_position_embeddings {
            return Err(Error::Input(format!(
                "calibration text {i} has {} tokens, expected 1 to {}",
                text.len(),
                config.max_position_embeddings
            )));
        }
        if let Some(id) = text.iter().find(|&&id| id as usize >= config.vocab_size) {
            return Err(Error::Input(format!(
                "calibration text {i}: token id {id} is outside the vocabulary"
            )));
        }
    }
    let lengths: Vec<usize> = calibration.iter().map(Vec::len).collect();
    if lengths.is_empty() {
        return Err(Error::Input("no calibration text".into()));
    }
    let (tokens, inputs) = (lengths.iter().sum::<usize>(), config.hidden_size);
    if tokens < inputs {
        tracing::warn!(
            "{tokens} calibration tokens are few for layers of {inputs} and more inputs: the \
             result is hardly better than rounding"
        );
    }
    Ok((calibration.concat(), Sequences::new(&lengths, |_| 0)))
}
