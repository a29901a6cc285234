//! Text to token ids and back.

mod files;
mod guard;

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::json::{Object, read_object_if_any};
use files::{Settings, read_tokenizer};
use guard::guarded;

/// Text to token ids and back: a checkpoint's `tokenizer.json`, and what the files beside it
/// add.
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
    /// The token that the tokenizer itself puts before a text.
    start: Option<String>,
    /// Whether it puts a space before a text.
    prefix: bool,
}

/// Whether a file of a checkpoint belongs to its tokenizer, generation settings
/// or chat template.
#[cfg(any(feature = "hub", feature = "quantize"))]
pub(crate) fn is_companion(name: &str) -> bool {
    ["tokenizer", "chat_template", "vocab", "merges"].iter().any(|start| name.starts_with(start))
        || ["special_tokens_map.json", "added_tokens.json", "generation_config.json"]
            .contains(&name)
}

impl Tokenizer {
    /// Reads `tokenizer.json` of a checkpoint's folder, the tokens that
    /// `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` add, and the
    /// ids that start and end a text from `generation_config.json`, `config.json` or
    /// `tokenizer_config.json`, whichever first names them.
    ///
    /// # Errors
    /// A missing or malformed file, and files that contradict each other.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let mut inner = read_tokenizer(dir)?;
        Settings::read(dir)?.apply(&mut inner)?;
        // A file may ask for both; prompts are neither cut nor filled here.
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

    /// Finds out what the tokenizer puts before a text.
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

    /// The ids under `key` + `_id` (a number or a list), or the id of the token
    /// that `key` spells out.
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

    /// Token ids of a text; `add_special` adds what the model expects around a
    /// text (often the start token). A text that begins with its start token, as templates of
    /// model cards do, gets no second one.
    ///
    /// # Errors
    /// A text that the tokenizer cannot represent.
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

    /// Token ids of a text that continues another one, or soft tokens: without the space that
    /// SentencePiece puts before whole texts, and without a start token.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_continuation(&self, text: &str) -> Result<Vec<u32>> {
        if !self.prefix || text.is_empty() {
            return self.encoded(text, false);
        }
        // As the end of a longer text, whose start no token joins with this one.
        for start in ["\n", ".", "a", "0"] {
            let before = self.encoded(start, false)?;
            let mut ids = self.encoded(&format!("{start}{text}"), false)?;
            if ids.starts_with(&before) {
                return Ok(ids.split_off(before.len()));
            }
        }
        self.encoded(text, false)
    }

    /// Text of token ids, without special tokens.
    ///
    /// # Errors
    /// Ids that the tokenizer does not know.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.decoded(ids, true)
    }

    fn decoded(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        guarded(|| self.inner.decode(ids, skip_special)).map_err(Error::Tokenizer)
    }

    /// Text that `new` adds to the text of `before`, without special tokens: with the space
    /// before its first word, which [`decode`](Self::decode) of `new` alone would lose.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn decode_continuation(&self, before: &[u32], new: &[u32]) -> Result<String> {
        self.continued(before, new, true)
    }

    /// [`decode_continuation`](Self::decode_continuation) up to the first of `stop`, which may
    /// hold special tokens; `None` where none of them occurs.
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
        // What decoders do to the start of a text they do to its first tokens: a few of
        // those before are enough, if they are not all invisible.
        let (mut tail, mut start) = (&before[..0], String::new());
        for len in [4, 16, 64, usize::MAX] {
            tail = &before[before.len() - len.min(before.len())..];
            start = self.decoded(tail, skip_special)?;
            if !start.is_empty() || tail.len() == before.len() {
                break;
            }
        }
        let whole = self.decoded(&[tail, new].concat(), skip_special)?;
        // A character of several tokens may only be complete with the new ones.
        let same = start.chars().zip(whole.chars()).take_while(|(a, b)| a == b);
        let end: usize = same.map(|(c, _)| c.len_utf8()).sum();
        Ok(whole[end..].to_owned())
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
