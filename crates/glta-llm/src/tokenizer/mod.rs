//! Converts between text and token ids.

mod files;
mod guard;

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::json::{Object, read_object_if_any};
use files::{Settings, read_tokenizer};
use guard::guarded;

/// A converter between text and token ids, defined by `tokenizer.json` and the other tokenizer
/// files of a checkpoint.
///
/// ```
/// use glta_llm::Tokenizer;
///
/// let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/llm");
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
    /// The token that the tokenizer adds at the start of a text.
    start: Option<String>,
    /// Whether the tokenizer adds a space at the start of a text.
    prefix: bool,
}

/// Returns whether a file of a checkpoint belongs to the tokenizer, the generation settings or the
/// chat template.
#[cfg(any(feature = "hub", feature = "quantize"))]
pub(crate) fn is_companion(name: &str) -> bool {
    ["tokenizer", "chat_template", "vocab", "merges"].iter().any(|start| name.starts_with(start))
        || ["special_tokens_map.json", "added_tokens.json", "generation_config.json"]
            .contains(&name)
}

impl Tokenizer {
    /// Loads the tokenizer of a checkpoint's folder: `tokenizer.json`, and the tokens of
    /// `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`. The ids at the
    /// start and the end of a text come from the first of `generation_config.json`, `config.json`
    /// and `tokenizer_config.json` that names them.
    ///
    /// # Errors
    /// Returns an error for a missing or malformed file, or for files that contradict each other.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let mut inner = read_tokenizer(dir)?;
        Settings::read(dir)?.apply(&mut inner)?;
        // A file may enable both, but prompts are neither truncated nor padded here.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| Error::Tokenizer(e.to_string()))?;
        let mut tokenizer = Self { inner, bos: None, eos: Vec::new(), start: None, prefix: false };
        for name in ["generation_config.json", "config.json", "tokenizer_config.json"] {
            let Some(object) = read_object_if_any(&dir.join(name))? else { continue };
            if tokenizer.bos.is_none() {
                let ids = tokenizer.ids(&object, "bos_token");
                tokenizer.bos = ids.first().copied();
            }
            if tokenizer.eos.is_empty() {
                tokenizer.eos = tokenizer.ids(&object, "eos_token");
            }
        }
        tokenizer.look_around();
        Ok(tokenizer)
    }

    /// Detects the token and the space that the tokenizer adds at the start of a text.
    fn look_around(&mut self) {
        let ids = |special: bool| self.encoded("a", special).unwrap_or_default();
        let (with, without) = (ids(true), ids(false));
        if let [start, rest @ ..] = &with[..]
            && rest.starts_with(&without)
            && !with.starts_with(&without)
        {
            self.start = self.inner.id_to_token(*start);
        }
        let first = without.first().and_then(|&id| self.inner.id_to_token(id));
        self.prefix = first.is_some_and(|token| token.starts_with(['▁', 'Ġ']));
    }

    /// Returns the ids in the field `{key}_id` (a number or a list), or else the id of the token in
    /// the field `key`.
    fn ids(&self, object: &Object, key: &str) -> Vec<u32> {
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

    /// Encodes a text. `add_special` adds the special tokens that the model expects around a text,
    /// often a start token. A text that already begins with the start token, such as a rendered
    /// chat template, gets no second one.
    ///
    /// # Errors
    /// Returns an error if the tokenizer cannot encode the text.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let start = self.start.as_deref().filter(|_| add_special);
        let text = start.and_then(|start| text.strip_prefix(start)).unwrap_or(text);
        self.encoded(text, add_special)
    }

    fn encoded(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        guarded(|| self.inner.encode(text, add_special))
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(Error::Tokenizer)
    }

    /// Encodes a text that continues another text or soft tokens, without the space that
    /// SentencePiece adds at the start of a text and without a start token.
    ///
    /// # Errors
    /// Returns the errors of [`encode`](Self::encode).
    pub fn encode_continuation(&self, text: &str) -> Result<Vec<u32>> {
        if !self.prefix || text.is_empty() {
            return self.encoded(text, false);
        }
        // Encode the text after a start that does not merge with its first token.
        for start in ["\n", ".", "a", "0"] {
            let before = self.encoded(start, false)?;
            let mut ids = self.encoded(&format!("{start}{text}"), false)?;
            if ids.starts_with(&before) {
                return Ok(ids.split_off(before.len()));
            }
        }
        self.encoded(text, false)
    }

    /// Decodes token ids, without special tokens.
    ///
    /// # Errors
    /// Returns an error for ids that the tokenizer does not know.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.decoded(ids, true)
    }

    fn decoded(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        guarded(|| self.inner.decode(ids, skip_special)).map_err(Error::Tokenizer)
    }

    /// Returns the text that `new` adds to the text of `before`, without special tokens. It
    /// includes the space before the first word, which [`decode`](Self::decode) of `new` alone
    /// would lose.
    ///
    /// # Errors
    /// Returns the errors of [`decode`](Self::decode).
    pub fn decode_continuation(&self, before: &[u32], new: &[u32]) -> Result<String> {
        self.continued(before, new, true)
    }

    /// Decodes like [`decode_continuation`](Self::decode_continuation), up to the first occurrence
    /// of a text in `stop`. These texts may contain special tokens. Returns `None` if none of them
    /// occurs.
    pub(crate) fn decode_up_to(
        &self,
        before: &[u32],
        new: &[u32],
        stop: &[String],
    ) -> Result<Option<String>> {
        if stop.is_empty() {
            return Ok(None);
        }
        let text = self.continued(before, new, false)?;
        let Some(end) = stop.iter().filter_map(|stop| text.find(stop.as_str())).min() else {
            return Ok(None);
        };
        let mut text = text[..end].to_owned();
        for token in self.inner.get_added_tokens_decoder().values().filter(|t| t.special) {
            if text.contains(&token.content) {
                text = text.replace(&token.content, "");
            }
        }
        Ok(Some(text))
    }

    fn continued(&self, before: &[u32], new: &[u32], skip_special: bool) -> Result<String> {
        // Decoders treat only the first tokens of a text differently, so a few tokens of `before`
        // are enough, unless all of them are invisible.
        let (mut tail, mut start) = (&before[..0], String::new());
        for len in [4, 16, 64, usize::MAX] {
            tail = &before[before.len() - len.min(before.len())..];
            start = self.decoded(tail, skip_special)?;
            if !start.is_empty() || tail.len() == before.len() {
                break;
            }
        }
        let whole = self.decoded(&[tail, new].concat(), skip_special)?;
        // A character of several tokens may only be complete with the new tokens.
        let same = start.chars().zip(whole.chars()).take_while(|(a, b)| a == b);
        let end: usize = same.map(|(c, _)| c.len_utf8()).sum();
        Ok(whole[end..].to_owned())
    }

    /// Returns the id of a token, spelled as in the vocabulary; `None` for an unknown token.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Returns the id of the token that starts a text; `None` if the files name none.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos
    }

    /// Returns the ids of the tokens that end a text.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos
    }

    /// Returns the number of token ids, including added tokens.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }
}
