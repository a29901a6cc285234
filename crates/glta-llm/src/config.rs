use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};

/// Shape and constants of a LLaMA model: `config.json` of either dialect
/// (`rope_parameters` of transformers 5, or the older `rope_theta` and
/// `rope_scaling`) brought into one form.
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
    /// Number of key and value heads; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Size of a head, even.
    pub head_dim: usize,
    /// Longest sequence in tokens.
    pub max_position_embeddings: usize,
    /// Added to the mean square inside RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary embedding's frequencies.
    pub rope_theta: f64,
    /// How the rotary frequencies are changed for long contexts.
    pub rope_scaling: Option<RopeScaling>,
    /// Whether the output layer is the token embedding.
    pub tie_word_embeddings: bool,
    /// Whether the four attention projections have biases.
    pub attention_bias: bool,
    /// Whether the three feed-forward projections have biases.
    pub mlp_bias: bool,
    /// Standard deviation of randomly initialised weights.
    pub initializer_range: f64,
    /// Token that starts a text.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text.
    pub eos_token_ids: Vec<u32>,
    /// How the linear layers are quantised; `None` for plain weights.
    pub quantization: Option<QuantizeConfig>,
}

/// Change of the rotary frequencies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rope_type", rename_all = "lowercase", deny_unknown_fields)]
#[non_exhaustive]
pub enum RopeScaling {
    /// All frequencies divided by `factor`.
    Linear {
        /// At least 1.
        factor: f64,
    },
    /// The wavelength bands of LLaMA 3.1.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Wavelengths over context / this are slowed down.
        low_freq_factor: f64,
        /// Wavelengths under context / this are kept.
        high_freq_factor: f64,
        /// Context length of the original training.
        original_max_position_embeddings: usize,
    },
}

/// How the linear layers of a checkpoint are quantised (`quantize_config.json`,
/// or the `quantization_config` block of `config.json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuantizeConfig {
    /// Bits per weight: 2, 3, 4 or 8.
    pub bits: u32,
    /// Input rows that share a scale and a zero point; `None` (-1 on disk) for
    /// all of them.
    pub group_size: Option<usize>,
    /// Whether rows were quantised in the order of their activations.
    pub desc_act: bool,
    /// Whether all zero points are in the middle of the range.
    pub sym: bool,
    /// How zero points are stored.
    pub checkpoint_format: CheckpointFormat,
    /// Whether the output layer is quantised as well.
    pub lm_head: bool,
}

/// How zero points are stored on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CheckpointFormat {
    /// `zero - 1`; also every file that does not say.
    #[default]
    #[serde(rename = "gptq")]
    V1,
    /// `zero`.
    #[serde(rename = "gptq_v2")]
    V2,
}

impl Default for QuantizeConfig {
    fn default() -> Self {
        Self {
            bits: 4,
            group_size: Some(128),
            desc_act: false,
            sym: true,
            checkpoint_format: CheckpointFormat::V1,
            lm_head: false,
        }
    }
}

impl Default for LlamaConfig {
    /// LLaMA-7B, the defaults of the format.
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
            mlp_bias: false,
            initializer_range: 0.02,
            bos_token_id: Some(1),
            eos_token_ids: vec![2],
            quantization: None,
        }
    }
}

impl LlamaConfig {
    /// Reads `config.json` and, where it has no `quantization_config`,
    /// `quantize_config.json` of a checkpoint's folder.
    ///
    /// ```
    /// use glta_llm::LlamaConfig;
    ///
    /// let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/quickstart/llm");
    /// let config = LlamaConfig::from_dir(dir)?;
    /// let bits = config.quantization.map(|quantization| quantization.bits);
    /// assert_eq!((config.num_hidden_layers, bits), (4, Some(4)));
    /// # Ok::<(), glta_llm::Error>(())
    /// ```
    ///
    /// # Errors
    /// Missing or malformed files, missing keys, unsupported options by name.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let path = dir.join("config.json");
        let json = read_object(&path)?;
        let mut config = parse_config(&path, &json)?;
        let separate = dir.join("quantize_config.json");
        config.quantization = match json.get("quantization_config") {
            Some(Value::Null) | None if separate.exists() => {
                Some(parse_quantization(&separate, &Value::Object(read_object(&separate)?))?)
            }
            Some(Value::Null) | None => None,
            Some(block) => Some(parse_quantization(&path, block)?),
        };
        config.validate()?;
        Ok(config)
    }

    /// Checks the fields against each other.
    ///
    /// # Errors
    /// The first field that cannot work.
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
            // The bound keeps every product of two sizes in range.
            if size == 0 || size > 1 << 28 {
                return Err(config_error(field, format!("{size} is not in 1..=2^28")));
            }
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            return Err(config_error(
                "num_key_value_heads",
                format!(
                    "{} does not divide the {} attention heads",
                    self.num_key_value_heads, self.num_attention_heads
                ),
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(config_error("head_dim", format!("{} is odd", self.head_dim)));
        }
        let positive = [("rms_norm_eps", self.rms_norm_eps), ("rope_theta", self.rope_theta)];
        for (field, value) in positive {
            if !(value.is_finite() && value > 0.0) {
                return Err(config_error(field, format!("{value} is not a positive number")));
            }
        }
        if !(self.initializer_range.is_finite() && self.initializer_range >= 0.0) {
            return Err(config_error("initializer_range", "must be a number >= 0"));
        }
        match self.rope_scaling {
            None => {}
            Some(RopeScaling::Linear { factor }) => check_factor(factor)?,
            Some(RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            }) => {
                check_factor(factor)?;
                let ordered = low_freq_factor > 0.0 && high_freq_factor > low_freq_factor;
                if !ordered
                    || !high_freq_factor.is_finite()
                    || original_max_position_embeddings == 0
                {
                    return Err(config_error(
                        "rope_scaling",
                        "llama3 needs 0 < low_freq_factor < high_freq_factor and a context length",
                    ));
                }
            }
        }
        if let Some(quantization) = &self.quantization {
            quantization.validate()?;
        }
        Ok(())
    }
}

impl QuantizeConfig {
    /// Checks the fields.
    ///
    /// # Errors
    /// The first field that cannot work.
    pub fn validate(&self) -> Result<()> {
        if ![2, 3, 4, 8].contains(&self.bits) {
            return Err(Error::Unsupported {
                what: format!("quantization bits = {}", self.bits),
                supported: "2, 3, 4, 8",
            });
        }
        if self.group_size == Some(0) {
            return Err(config_error("group_size", "0; use -1 for one group"));
        }
        Ok(())
    }
}

fn check_factor(factor: f64) -> Result<()> {
    if factor.is_finite() && factor >= 1.0 {
        return Ok(());
    }
    Err(config_error("rope_scaling", format!("factor {factor} is below 1")))
}

fn config_error(field: &'static str, problem: impl Into<String>) -> Error {
    Error::Config { field, problem: problem.into() }
}

type Object = serde_json::Map<String, Value>;

pub(crate) fn read_object(path: &Path) -> Result<Object> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Error::json(path, "expected an object")),
        Err(error) => Err(Error::json(path, error)),
    }
}

/// Typed access to a JSON object; `null` counts as absent.
struct Fields<'a> {
    path: &'a Path,
    object: &'a Object,
}

impl<'a> Fields<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|v| !v.is_null())
    }
    fn wrong(&self, key: &str, expected: &str) -> Error {
        Error::json(self.path, format!("`{key}` is not {expected}"))
    }
    fn usize(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let number = value.as_u64().and_then(|n| usize::try_from(n).ok());
        number.map(Some).ok_or_else(|| self.wrong(key, "a whole number"))
    }
    fn required(&self, key: &str) -> Result<usize> {
        self.usize(key)?.ok_or_else(|| Error::json(self.path, format!("`{key}` is missing")))
    }
    fn f64(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value.as_f64().map(Some).ok_or_else(|| self.wrong(key, "a number"))
    }
    fn bool(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value.as_bool().map(Some).ok_or_else(|| self.wrong(key, "true or false"))
    }
    fn str(&self, key: &str) -> Result<Option<&'a str>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value.as_str().map(Some).ok_or_else(|| self.wrong(key, "a string"))
    }
    fn object(&self, key: &str) -> Result<Option<Fields<'a>>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let object = value.as_object().ok_or_else(|| self.wrong(key, "an object"))?;
        Ok(Some(Fields { path: self.path, object }))
    }
    fn token_ids(&self, key: &str) -> Result<Vec<u32>> {
        let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        let ids = match self.get(key) {
            None => return Ok(Vec::new()),
            Some(Value::Array(ids)) => ids.iter().map(id).collect(),
            Some(value) => id(value).map(|id| vec![id]),
        };
        ids.ok_or_else(|| self.wrong(key, "a token id"))
    }
}

fn parse_config(path: &Path, object: &Object) -> Result<LlamaConfig> {
    let f = Fields { path, object };
    let model_type = f.str("model_type")?.unwrap_or("llama");
    if !["llama", "mistral"].contains(&model_type) {
        return Err(Error::Unsupported {
            what: format!("model_type \"{model_type}\""),
            supported: "llama, mistral",
        });
    }
    let activation = f.str("hidden_act")?.unwrap_or("silu");
    if activation != "silu" {
        return Err(Error::Unsupported {
            what: format!("hidden_act \"{activation}\""),
            supported: "silu",
        });
    }
    let hidden_size = f.required("hidden_size")?;
    let heads = f.required("num_attention_heads")?;
    if heads == 0 {
        return Err(config_error("num_attention_heads", "0"));
    }
    if f.get("head_dim").is_none() && !hidden_size.is_multiple_of(heads) {
        return Err(config_error("head_dim", "missing, and the heads do not divide hidden_size"));
    }
    let mut context = f.usize("max_position_embeddings")?.unwrap_or(2048);
    // Within its window, sliding attention is plain attention.
    if let Some(window) = f.usize("sliding_window")? {
        context = context.min(window);
    }
    let (rope_theta, rope_scaling) = parse_rope(&f, context)?;
    Ok(LlamaConfig {
        vocab_size: f.required("vocab_size")?,
        hidden_size,
        intermediate_size: f.required("intermediate_size")?,
        num_hidden_layers: f.required("num_hidden_layers")?,
        num_attention_heads: heads,
        num_key_value_heads: f.usize("num_key_value_heads")?.unwrap_or(heads),
        head_dim: f.usize("head_dim")?.unwrap_or(hidden_size / heads),
        max_position_embeddings: context,
        rms_norm_eps: f.f64("rms_norm_eps")?.unwrap_or(1e-6),
        rope_theta,
        rope_scaling,
        tie_word_embeddings: f.bool("tie_word_embeddings")?.unwrap_or(false),
        attention_bias: f.bool("attention_bias")?.unwrap_or(false),
        mlp_bias: f.bool("mlp_bias")?.unwrap_or(false),
        initializer_range: f.f64("initializer_range")?.unwrap_or(0.02),
        bos_token_id: f.token_ids("bos_token_id")?.first().copied(),
        eos_token_ids: f.token_ids("eos_token_id")?,
        quantization: None,
    })
}

fn parse_rope(f: &Fields, context: usize) -> Result<(f64, Option<RopeScaling>)> {
    let new = f.object("rope_parameters")?;
    let old = f.object("rope_scaling")?;
    let theta = match &new {
        Some(new) => new.f64("rope_theta")?,
        None => None,
    };
    let theta = match theta {
        Some(theta) => theta,
        None => f.f64("rope_theta")?.unwrap_or(10_000.0),
    };
    let partial = match &new {
        Some(new) => new.f64("partial_rotary_factor")?,
        None => f.f64("partial_rotary_factor")?,
    };
    if partial.is_some_and(|p| p != 1.0) {
        return Err(Error::Unsupported {
            what: format!("partial_rotary_factor {}", partial.unwrap_or_default()),
            supported: "1",
        });
    }
    let Some(rope) = new.or(old) else {
        return Ok((theta, None));
    };
    let kind = match rope.str("rope_type")? {
        Some(kind) => kind,
        None => rope.str("type")?.unwrap_or("default"),
    };
    let need = |key: &str| {
        rope.f64(key)?
            .ok_or_else(|| Error::json(f.path, format!("rope scaling \"{kind}\" lacks `{key}`")))
    };
    let scaling = match kind {
        "default" => None,
        "linear" => Some(RopeScaling::Linear { factor: need("factor")? }),
        "llama3" => Some(RopeScaling::Llama3 {
            factor: need("factor")?,
            low_freq_factor: need("low_freq_factor")?,
            high_freq_factor: need("high_freq_factor")?,
            original_max_position_embeddings: rope
                .usize("original_max_position_embeddings")?
                .unwrap_or(context),
        }),
        other => {
            return Err(Error::Unsupported {
                what: format!("rope type \"{other}\""),
                supported: "default, linear, llama3",
            });
        }
    };
    Ok((theta, scaling))
}

fn parse_quantization(path: &Path, block: &Value) -> Result<QuantizeConfig> {
    let object = block
        .as_object()
        .ok_or_else(|| Error::json(path, "quantization_config is not an object"))?;
    let f = Fields { path, object };
    let method = match f.str("quant_method")? {
        Some(method) => method,
        None => f.str("method")?.unwrap_or("gptq"),
    };
    if method != "gptq" {
        return Err(Error::Unsupported {
            what: format!("quant_method \"{method}\""),
            supported: "gptq",
        });
    }
    let format = match f.str("checkpoint_format")? {
        Some(format) => format,
        None => f.str("format")?.unwrap_or("gptq"),
    };
    let checkpoint_format = match format {
        "gptq" => CheckpointFormat::V1,
        "gptq_v2" => CheckpointFormat::V2,
        other => {
            return Err(Error::Unsupported {
                what: format!("checkpoint_format \"{other}\""),
                supported: "gptq, gptq_v2",
            });
        }
    };
    if let Some(dtype) = f.str("pack_dtype")?.filter(|&d| d != "int32") {
        return Err(Error::Unsupported {
            what: format!("pack_dtype \"{dtype}\""),
            supported: "int32",
        });
    }
    if f.bool("is_marlin_format")?.unwrap_or(false) {
        return Err(Error::Unsupported {
            what: "is_marlin_format".into(),
            supported: "checkpoint_format gptq, gptq_v2",
        });
    }
    // Options that change the meaning of single layers.
    let dynamic = f.get("dynamic").is_some_and(|v| v.as_object().is_none_or(|o| !o.is_empty()));
    let some = f.get("modules_in_block_to_quantize").is_some_and(|v| !names_all_modules(v));
    for (key, set) in [("dynamic", dynamic), ("modules_in_block_to_quantize", some)] {
        if set {
            return Err(Error::Unsupported {
                what: format!("quantization option `{key}`"),
                supported: "the same bits and groups for every layer",
            });
        }
    }
    let bits = f.required("bits")?;
    let group_size = match f.get("group_size") {
        None => return Err(Error::json(path, "`group_size` is missing")),
        Some(value) => match value.as_i64() {
            Some(-1) => None,
            Some(size) if size > 0 => Some(size as usize),
            _ => return Err(f.wrong("group_size", "-1 or a positive number")),
        },
    };
    let config = QuantizeConfig {
        bits: u32::try_from(bits).unwrap_or(u32::MAX),
        group_size,
        desc_act: f.bool("desc_act")?.unwrap_or(false),
        sym: f.bool("sym")?.unwrap_or(true),
        checkpoint_format,
        lm_head: f.bool("lm_head")?.unwrap_or(false),
    };
    config.validate()?;
    Ok(config)
}

/// Whether a list of modules, perhaps of lists (those quantised together),
/// names every linear layer of a block, or is empty, which means the same.
fn names_all_modules(value: &Value) -> bool {
    let mut named = Vec::new();
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        match value {
            Value::Array(values) => open.extend(values),
            Value::String(name) => named.push(name.as_str()),
            _ => return false,
        }
    }
    let attention = ["q_proj", "k_proj", "v_proj", "o_proj"].map(|p| format!("self_attn.{p}"));
    let mlp = ["gate_proj", "up_proj", "down_proj"].map(|p| format!("mlp.{p}"));
    named.is_empty() || attention.iter().chain(&mlp).all(|m| named.contains(&m.as_str()))
}
