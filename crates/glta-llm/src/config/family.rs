//! Recognises the model family of a `config.json`: LLaMA, a renamed LLaMA, or a model that differs
//! in biases, norms or attention windows.

use super::window::SlidingWindow;
use crate::error::{Error, Result};
use crate::json::Fields;

/// The supported model families.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Llama,
    /// LLaMA with one key `bias` for all four attention projections.
    InternLm,
    /// LLaMA with the key `qkv_bias`, and the key `bias` for all other projections.
    InternLm3,
    Mistral,
    /// LLaMA with biases of q, k and v.
    Qwen2,
    /// LLaMA with norms of the q and k heads.
    Qwen3,
}

const SUPPORTED: &str = "llama, mistral, qwen2, qwen3, aquila, internlm, internlm3, xverse";

/// The differences of a family from LLaMA, and its default values.
pub(super) struct Family {
    kind: Kind,
}

impl Family {
    /// Recognises the family by `model_type`. If this key is missing or unknown, as in renamed
    /// LLaMA models, recognises the family by `architectures`.
    pub(super) fn of(f: &Fields<'_>) -> Result<Self> {
        let model_type = f.str("model_type")?;
        if let Some(kind) = model_type.and_then(by_type) {
            return Ok(Self { kind });
        }
        let architectures = f.strings("architectures")?.unwrap_or_default();
        match (model_type, architectures.iter().find_map(|name| by_architecture(name))) {
            (_, Some(kind)) => Ok(Self { kind }),
            (None, None) if architectures.is_empty() => Ok(Self { kind: Kind::Llama }),
            (None, None) => {
                Err(f.unsupported(format!("architectures {architectures:?}"), SUPPORTED))
            }
            (Some(other), None) => Err(f.unsupported(format!("model_type \"{other}\""), SUPPORTED)),
        }
    }

    pub(super) fn default_positions(&self) -> usize {
        match self.kind {
            Kind::Mistral => 131_072,
            Kind::Qwen2 | Kind::Qwen3 => 32_768,
            _ => 2048,
        }
    }

    pub(super) fn default_key_value_heads(&self, heads: usize) -> usize {
        match self.kind {
            Kind::Mistral => 8,
            Kind::Qwen2 | Kind::Qwen3 => 32,
            _ => heads,
        }
    }

    /// Returns the default size of a head; `None` for `hidden_size` divided by the number of heads.
    pub(super) fn default_head_dim(&self) -> Option<usize> {
        (self.kind == Kind::Qwen3).then_some(128)
    }

    /// Returns whether q and k heads are normalised by an RMSNorm before the rotation.
    pub(super) fn qk_norm(&self) -> bool {
        self.kind == Kind::Qwen3
    }

    /// Returns whether there are biases in q, k and v, in o, and in the feed-forward part.
    pub(super) fn biases(&self, f: &Fields<'_>) -> Result<[bool; 3]> {
        let set = |key: &str| Ok::<_, Error>(f.bool(key)?.unwrap_or(false));
        Ok(match self.kind {
            Kind::Llama => {
                let attention = set("attention_bias")?;
                [attention, attention, set("mlp_bias")?]
            }
            Kind::InternLm => {
                let attention = f.bool("bias")?.unwrap_or(true);
                [attention, attention, false]
            }
            Kind::InternLm3 => [set("qkv_bias")?, set("bias")?, set("bias")?],
            Kind::Mistral => [false; 3],
            Kind::Qwen2 => [true, false, false],
            Kind::Qwen3 => {
                let attention = set("attention_bias")?;
                [attention, attention, false]
            }
        })
    }

    /// Returns the attention window and the layers that use it.
    pub(super) fn window(&self, f: &Fields<'_>, layers: usize) -> Result<Option<SlidingWindow>> {
        let qwen = matches!(self.kind, Kind::Qwen2 | Kind::Qwen3);
        if !qwen && self.kind != Kind::Mistral {
            return Ok(None);
        }
        // Qwen's files contain a window that is disabled unless this key is true. transformers
        // reads the key only for Qwen; other engines read it for all models.
        if !f.bool("use_sliding_window")?.unwrap_or(!qwen) {
            return Ok(None);
        }
        let tokens = match f.object.get("sliding_window") {
            // Use the default of transformers for a missing key; `null` means no window.
            None => 4096,
            Some(_) => match f.usize("sliding_window")? {
                None => return Ok(None),
                Some(0) => return Err(f.invalid("sliding_window", "a positive number or null")),
                Some(tokens) => tokens,
            },
        };
        let slides: Vec<bool> = match f.strings("layer_types")?.filter(|_| qwen) {
            Some(types) if types.len() == layers => types
                .into_iter()
                .map(|kind| match kind {
                    "sliding_attention" => Ok(true),
                    "full_attention" => Ok(false),
                    other => Err(f.unsupported(
                        format!("layer type \"{other}\""),
                        "full_attention, sliding_attention",
                    )),
                })
                .collect::<Result<_>>()?,
            Some(types) => {
                let problem =
                    format!("`layer_types` has {} entries for {layers} layers", types.len());
                return Err(Error::json(f.path, problem));
            }
            None if qwen => {
                let first = f.usize("max_window_layers")?.unwrap_or(28);
                // Limit the allocation, because `layers` is validated later.
                (0..layers.min(1 << 16)).map(|layer| layer >= first).collect()
            }
            None => vec![true; layers.min(1 << 16)],
        };
        Ok(slides.contains(&true).then_some(SlidingWindow { tokens, layers: slides }))
    }
}

fn by_type(name: &str) -> Option<Kind> {
    Some(match name {
        "llama" | "aquila" | "xverse" => Kind::Llama,
        "internlm" => Kind::InternLm,
        "internlm3" => Kind::InternLm3,
        "mistral" => Kind::Mistral,
        "qwen2" => Kind::Qwen2,
        "qwen3" => Kind::Qwen3,
        _ => return None,
    })
}

fn by_architecture(name: &str) -> Option<Kind> {
    let family = name.strip_suffix("ForCausalLM").or_else(|| name.strip_suffix("Model"))?;
    // transformers uses the first spelling, older files the second.
    Some(match family {
        "Llama" | "LLaMA" | "Aquila" | "Xverse" => Kind::Llama,
        "InternLM" => Kind::InternLm,
        "InternLM3" => Kind::InternLm3,
        "Mistral" => Kind::Mistral,
        "Qwen2" => Kind::Qwen2,
        "Qwen3" => Kind::Qwen3,
        _ => return None,
    })
}
