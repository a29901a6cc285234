use std::panic::AssertUnwindSafe;
use std::path::Path;

use serde_json::Value;

use crate::config::read_object;
use crate::error::{Error, Result};

/// Text to token ids and back: a checkpoint's `tokenizer.json`.
///
/// ```
/// use glta_llm::Tokenizer;
///
/// let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/quickstart/llm");
/// let tokenizer = Tokenizer::load(dir)?;
/// let ids = tokenizer.encode("green tea", false)?;
/// assert_eq!(tokenizer.decode(&ids)?.trim(), "green tea");
/// # Ok::<(), glta_llm::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bos: Option<u32>,
    eos: Vec<u32>,
}

/// Whether a file of a checkpoint belongs to its tokenizer, generation settings
/// or chat template.
#[cfg(any(feature = "hub", feature = "quantize"))]
pub(crate) fn is_companion(name: &str) -> bool {
    ["tokenizer", "chat_template", "vocab", "merges"].iter().any(|start| name.starts_with(start))
        || ["special_tokens_map.json", "added_tokens.json", "generation_config.json"]
            .contains(&name)
}

/// Calls the library, which panics on some files that contradict themselves.
fn guarded<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> std::result::Result<T, String> {
    // The tokenizer is only read, or dropped.
    std::panic::catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("its parts contradict each other: {}", text.unwrap_or("panicked")).into())
        })
        .map_err(|e| e.to_string())
}

impl Tokenizer {
    /// Reads `tokenizer.json` of a checkpoint's folder, and the ids that start
    /// and end a text from `generation_config.json`, `config.json` or
    /// `tokenizer_config.json`, whichever first names them.
    ///
    /// # Errors
    /// A missing or malformed file.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let path = dir.join("tokenizer.json");
        let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
        let mut inner = guarded(|| tokenizers::Tokenizer::from_bytes(&bytes))
            .map_err(|e| Error::Tokenizer(format!("{}: {e}", path.display())))?;
        // A file may ask for both; prompts are neither cut nor filled here.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| Error::Tokenizer(e.to_string()))?;
        let mut tokenizer = Self { inner, bos: None, eos: Vec::new() };
        for name in ["generation_config.json", "config.json", "tokenizer_config.json"] {
            let path = dir.join(name);
            if !path.exists() {
                continue;
            }
            let object = read_object(&path)?;
            if tokenizer.bos.is_none() {
                let ids = tokenizer.ids(&object, "bos_token");
                tokenizer.bos = ids.first().copied();
            }
            if tokenizer.eos.is_empty() {
                tokenizer.eos = tokenizer.ids(&object, "eos_token");
            }
        }
        Ok(tokenizer)
    }

    /// The ids under `key` + `_id` (a number or a list), or the id of the token
    /// that `key` spells out.
    fn ids(&self, object: &serde_json::Map<String, Value>, key: &str) -> Vec<u32> {
        let number = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        match object.get(&format!("{key}_id")) {
            Some(Value::Array(ids)) => return ids.iter().filter_map(number).collect(),
            Some(value) => {
                if let Some(id) = number(value) {
                    return vec![id];
                }
            }
            None => {}
        }
        let text = match object.get(key) {
            Some(Value::String(text)) => Some(text.as_str()),
            Some(Value::Object(token)) => token.get("content").and_then(Value::as_str),
            _ => None,
        };
        text.and_then(|t| self.inner.token_to_id(t)).into_iter().collect()
    }

    /// Token ids of a text; `add_special` adds what the model expects around a
    /// text (often the start token).
    ///
    /// # Errors
    /// A text that the tokenizer cannot represent.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        guarded(|| self.inner.encode(text, add_special))
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(Error::Tokenizer)
    }

    /// Text of token ids, without special tokens.
    ///
    /// # Errors
    /// Ids that the tokenizer does not know.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        guarded(|| self.inner.decode(ids, true)).map_err(Error::Tokenizer)
    }

    /// Id of a single token, spelled as in the vocabulary.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Token that starts a text.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos
    }

    /// Tokens that end a text.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos
    }

    /// Number of token ids, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }
}
