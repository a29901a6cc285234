//! Reads the settings of a model from the JSON files of a checkpoint.

mod family;
mod problem;
mod quantization;
mod quantization_files;
mod rope;
mod window;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::json::{Fields, read_object, read_object_if_any};
use family::Family;
use problem::{located, problem};
pub use quantization::{CheckpointFormat, ModuleRule, QuantizeConfig};
pub use rope::RopeScaling;
pub use window::SlidingWindow;

/// Sizes and constants of a model of the LLaMA family, merged from `config.json`,
/// `generation_config.json` and `quantize_config.json`. `docs/gptq.md` documents the precedence of
/// these files. The default values are those of LLaMA-7B.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LlamaConfig {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width inside the feed-forward part.
    pub intermediate_size: usize,
    /// Number of decoder layers.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads, a divisor of `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Size of a head, an even number.
    pub head_dim: usize,
    /// Maximum number of tokens of a sequence. With `linear` and `yarn` rope scaling, this is the
    /// extended context.
    pub max_position_embeddings: usize,
    /// Number that RMSNorm adds to the mean square.
    pub rms_norm_eps: f64,
    /// Base of the frequencies of the rotary embedding.
    pub rope_theta: f64,
    /// Change of the rotary frequencies for long contexts; `None` for no change.
    pub rope_scaling: Option<RopeScaling>,
    /// Whether the output layer shares the weights of the token embedding.
    pub tie_word_embeddings: bool,
    /// Whether the projections of queries, keys and values have biases.
    pub attention_bias: bool,
    /// Whether the projection of the attention's output has biases.
    pub output_bias: bool,
    /// Whether the three feed-forward projections have biases.
    pub mlp_bias: bool,
    /// Whether the heads of queries and keys have an RMSNorm before the rotation (Qwen3).
    pub qk_norm: bool,
    /// Attention window; `None` if all layers attend to all previous tokens.
    pub sliding_window: Option<SlidingWindow>,
    /// Standard deviation of random weights, for [`Llama::random`](crate::Llama::random).
    pub initializer_range: f64,
    /// Id of the token at the start of a text; `None` if the files name none.
    pub bos_token_id: Option<u32>,
    /// Ids of the tokens that end a text.
    pub eos_token_ids: Vec<u32>,
    /// Quantisation of the linear layers; `None` for plain weights.
    pub quantization: Option<QuantizeConfig>,
}

impl Default for LlamaConfig {
    /// Returns the sizes of LLaMA-7B.
    fn default() -> Self {
        Self {
            vocab_size: 32_000,
            hidden_size: 4096,
            intermediate_size: 11_008,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: 32,
            head_dim: 128,
            max_position_embeddings: 2048,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            rope_scaling: None,
            tie_word_embeddings: false,
            attention_bias: false,
            output_bias: false,
            mlp_bias: false,
            qk_norm: false,
            sliding_window: None,
            initializer_range: 0.02,
            bos_token_id: Some(1),
            eos_token_ids: vec![2],
            quantization: None,
        }
    }
}

impl LlamaConfig {
    /// Reads `config.json`, `generation_config.json` and `quantize_config.json` of a
    /// checkpoint's folder.
    ///
    /// ```
    /// use glta_llm::LlamaConfig;
    ///
    /// let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/llm");
    /// let config = LlamaConfig::from_dir(dir)?;
    /// let bits = config.quantization.map(|quantization| quantization.bits);
    /// assert_eq!((config.num_hidden_layers, bits), (4, Some(4)));
    /// # Ok::<(), glta_llm::Error>(())
    /// ```
    ///
    /// # Errors
    /// Returns an error for missing or malformed files, missing keys, unsupported options, or files
    /// that contradict each other.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let path = dir.join("config.json");
        let json = read_object(&path)?;
        let f = Fields { path: &path, object: &json };
        let mut config = parse(&f)?;
        let separate_path = dir.join("quantize_config.json");
        let separate = read_object_if_any(&separate_path)?;
        let separate = separate.as_ref().map(|object| Fields { path: &separate_path, object });
        config.quantization =
            quantization_files::merge(f.object("quantization_config")?, separate)?;
        let generation_path = dir.join("generation_config.json");
        if let Some(object) = read_object_if_any(&generation_path)? {
            let f = Fields { path: &generation_path, object: &object };
            if let Some(ids) = f.token_ids("eos_token_id")? {
                config.eos_token_ids = ids;
            }
            if let Some(ids) = f.token_ids("bos_token_id")? {
                config.bos_token_id = ids.first().copied();
            }
        }
        config.validate().map_err(|e| located(&path, e))?;
        Ok(config)
    }

    /// Checks that the fields are valid and consistent.
    ///
    /// # Errors
    /// Returns an error that names the first invalid field.
    pub fn validate(&self) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        for (field, size) in sizes {
            // The limit prevents overflow in products of two sizes.
            if size == 0 || size > 1 << 28 {
                return Err(problem(field, format!("{size} is not in 1..=2^28")));
            }
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            return Err(problem(
                "num_key_value_heads",
                format!(
                    "{} does not divide the {} attention heads",
                    self.num_key_value_heads, self.num_attention_heads
                ),
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(problem("head_dim", format!("{} is odd", self.head_dim)));
        }
        let positive = [("rms_norm_eps", self.rms_norm_eps), ("rope_theta", self.rope_theta)];
        for (field, value) in positive {
            if !(value.is_finite() && value > 0.0) {
                return Err(problem(field, format!("{value} is not a positive number")));
            }
        }
        if !(self.initializer_range.is_finite() && self.initializer_range >= 0.0) {
            return Err(problem("initializer_range", "must be a number >= 0"));
        }
        if let Some(scaling) = &self.rope_scaling {
            scaling.validate()?;
        }
        if self.sliding_window.as_ref().is_some_and(|window| window.tokens == 0) {
            return Err(problem("sliding_window", "0 tokens"));
        }
        if let Some(quantization) = &self.quantization {
            quantization.validate()?;
        }
        Ok(())
    }
}

fn parse(f: &Fields<'_>) -> Result<LlamaConfig> {
    let family = Family::of(f)?;
    let activation = f.str("hidden_act")?.unwrap_or("silu");
    if !["silu", "swish"].contains(&activation) {
        return Err(f.unsupported(format!("hidden_act \"{activation}\""), "silu"));
    }
    let hidden_size = f.required("hidden_size")?;
    let heads = f.required("num_attention_heads")?;
    let num_hidden_layers = f.required("num_hidden_layers")?;
    if heads == 0 {
        return Err(Error::json(f.path, "`num_attention_heads` is 0"));
    }
    let head_dim = match f.usize("head_dim")?.or(family.default_head_dim()) {
        Some(dim) => dim,
        None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            let problem = "`head_dim` is missing, and the heads do not divide `hidden_size`";
            return Err(Error::json(f.path, problem));
        }
    };
    let positions = f.usize("max_position_embeddings")?.unwrap_or(family.default_positions());
    let rope = rope::parse(f, positions)?;
    let [attention_bias, output_bias, mlp_bias] = family.biases(f)?;
    // `null` means the number of query heads. Some families have another default for a missing key.
    let absent = !f.object.contains_key("num_key_value_heads");
    let default_heads = if absent { family.default_key_value_heads(heads) } else { heads };
    Ok(LlamaConfig {
        vocab_size: f.required("vocab_size")?,
        hidden_size,
        intermediate_size: f.required("intermediate_size")?,
        num_hidden_layers,
        num_attention_heads: heads,
        num_key_value_heads: f.usize("num_key_value_heads")?.unwrap_or(default_heads),
        head_dim,
        max_position_embeddings: rope.context,
        rms_norm_eps: f.f64("rms_norm_eps")?.unwrap_or(1e-6),
        rope_theta: rope.theta,
        rope_scaling: rope.scaling,
        tie_word_embeddings: f.bool("tie_word_embeddings")?.unwrap_or(false),
        attention_bias,
        output_bias,
        mlp_bias,
        qk_norm: family.qk_norm(),
        sliding_window: family.window(f, num_hidden_layers)?,
        initializer_range: f.f64("initializer_range")?.unwrap_or(0.02),
        bos_token_id: f.token_ids("bos_token_id")?.and_then(|ids| ids.first().copied()),
        eos_token_ids: f.token_ids("eos_token_id")?.unwrap_or_default(),
        quantization: None,
    })
}
