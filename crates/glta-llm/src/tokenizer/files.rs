//! Merges `tokenizer.json` with the other tokenizer files, as transformers 5 does.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, NormalizerWrapper};

use super::guard::guarded;
use crate::damage::recognise;
use crate::error::{Error, Result};
use crate::json::{Fields, Object, read_object_if_any, syntax_problem};

/// The settings outside `tokenizer.json`.
pub(super) struct Settings {
    path: PathBuf,
    /// The content of `tokenizer_config.json`; empty if there is no such file.
    config: Object,
    map_path: PathBuf,
    /// The content of `special_tokens_map.json`; empty if `tokenizer_config.json` lists added
    /// tokens.
    map: Object,
    added_path: PathBuf,
    /// The content of `added_tokens.json`; empty if `tokenizer_config.json` lists added tokens.
    added: Object,
}

impl Settings {
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = dir.join(name);
            Ok::<_, Error>((read_object_if_any(&path)?.unwrap_or_default(), path))
        };
        let (config, path) = read("tokenizer_config.json")?;
        let (map, map_path) = read("special_tokens_map.json")?;
        let (added, added_path) = read("added_tokens.json")?;
        let mut settings = Self { path, config, map_path, map, added_path, added };
        if settings.config.contains_key("added_tokens_decoder") {
            settings.map.clear();
            settings.added.clear();
        }
        Ok(settings)
    }

    fn config(&self) -> Fields<'_> {
        Fields { path: &self.path, object: &self.config }
    }

    /// Returns a named token such as `bos_token` from the first file that contains it.
    pub(super) fn named(&self, key: &str) -> Result<Option<String>> {
        for (path, object) in [(&self.map_path, &self.map), (&self.path, &self.config)] {
            let f = Fields { path, object };
            if let Some(value) = f.get(key) {
                let token = token_of(value).ok_or_else(|| f.invalid(key, "a token"))?;
                return Ok(Some(token.content));
            }
        }
        Ok(None)
    }

    /// Returns all named and additional special tokens.
    fn special(&self) -> Result<Vec<AddedToken>> {
        let mut tokens = Vec::new();
        for (path, object) in [(&self.map_path, &self.map), (&self.path, &self.config)] {
            let f = Fields { path, object };
            for (key, value) in object.iter().filter(|(_, value)| !value.is_null()) {
                if key.ends_with("_token") {
                    // Other keys have the same suffix, with the value `true` or `false`.
                    tokens.extend(token_of(value));
                } else if ["extra_special_tokens", "additional_special_tokens"].contains(&&**key) {
                    let invalid = || f.invalid(key, "a list of tokens");
                    let list: Vec<&Value> = match value {
                        Value::Array(list) => list.iter().collect(),
                        Value::Object(named) => named.values().collect(),
                        _ => return Err(invalid()),
                    };
                    for value in list {
                        tokens.push(token_of(value).ok_or_else(invalid)?);
                    }
                }
            }
        }
        tokens.iter_mut().for_each(|token| token.special = true);
        Ok(tokens)
    }

    /// Returns tokens with their ids from `added_tokens_decoder` or `added_tokens.json`.
    fn numbered(&self) -> Result<Vec<(u32, AddedToken, &Path)>> {
        let f = self.config();
        let mut tokens = Vec::new();
        if let Some(listed) = f.object("added_tokens_decoder")? {
            let invalid = || f.invalid("added_tokens_decoder", "an object of tokens by their ids");
            for (id, value) in listed.object {
                let token = value.as_object().and_then(|_| token_of(value)).ok_or_else(invalid)?;
                tokens.push((id.parse().map_err(|_| invalid())?, token, &*self.path));
            }
        }
        let f = Fields { path: &self.added_path, object: &self.added };
        for (content, id) in &self.added {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
            let id = id.ok_or_else(|| f.invalid(content, "a token id"))?;
            tokens.push((id, AddedToken::from(content.clone(), false), &*self.added_path));
        }
        tokens.sort_by_key(|(id, ..)| *id);
        Ok(tokens)
    }

    /// Applies the settings of these files to the tokenizer of `tokenizer.json`.
    pub(super) fn apply(&self, inner: &mut tokenizers::Tokenizer) -> Result<()> {
        self.set_prefix(inner)?;
        let present = |inner: &tokenizers::Tokenizer, content: &str| {
            inner.get_added_vocabulary().get_vocab().contains_key(content)
        };
        let special = self.special()?;
        for (id, mut token, path) in self.numbered()? {
            // `added_tokens.json` has no flags, so those of `tokenizer.json` apply.
            let listed = path == self.path;
            if !listed && present(inner, &token.content) {
                continue;
            }
            token.special |= special.iter().any(|special| special.content == token.content);
            let content = token.content.clone();
            if inner.get_added_tokens_decoder().get(&id) != Some(&token) {
                add(inner, token, path)?;
            }
            match inner.token_to_id(&content) {
                Some(found) if found == id => {}
                found => {
                    let found = found.map_or("none".to_owned(), |id| id.to_string());
                    let problem = format!(
                        "the added token {content:?} has the id {id}, but {found} by \
                         tokenizer.json; take both files from one checkpoint"
                    );
                    return Err(Error::json(path, problem));
                }
            }
        }
        for token in special {
            if !present(inner, &token.content) {
                add(inner, token, &self.path)?;
            }
        }
        self.add_template(inner)
    }

    /// Sets the space that SentencePiece adds in front of a text. For LLaMA's SentencePiece
    /// tokenizers, transformers overrides `tokenizer.json`: by default, the space is added only at
    /// the start of the text, not after special tokens, and not if the text already begins with a
    /// space.
    fn set_prefix(&self, inner: &mut tokenizers::Tokenizer) -> Result<()> {
        let f = self.config();
        let class = f.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
        let prepends = inner.get_normalizer().is_some_and(prepends);
        if !["LlamaTokenizer", "LlamaTokenizerFast"].contains(&class) || !prepends {
            return Ok(());
        }
        let scheme = match (f.bool("add_prefix_space")?, f.bool("legacy")?) {
            (Some(false), _) => PrependScheme::Never,
            (_, Some(true)) => PrependScheme::Always,
            _ => PrependScheme::First,
        };
        inner.with_pre_tokenizer(Some(Metaspace::new('▁', scheme, false)));
        inner
            .with_normalizer(None::<NormalizerWrapper>)
            .map_err(|e| Error::Tokenizer(format!("{}: {e}", self.path.display())))?;
        Ok(())
    }

    /// Adds start and end tokens by `add_bos_token` and `add_eos_token` if `tokenizer.json` has no
    /// post-processor.
    fn add_template(&self, inner: &mut tokenizers::Tokenizer) -> Result<()> {
        if inner.get_post_processor().is_some() {
            return Ok(());
        }
        let f = self.config();
        let mut tokens = Vec::new();
        let mut around = |flag: &str, key: &str| -> Result<Option<String>> {
            let wanted = f.bool(flag)?.unwrap_or(false);
            let Some(token) = self.named(key)?.filter(|_| wanted) else { return Ok(None) };
            let id = inner.token_to_id(&token).ok_or_else(|| {
                Error::json(&self.path, format!("`{key}` {token:?} is not in tokenizer.json"))
            })?;
            tokens.push((token.clone(), id));
            Ok(Some(token))
        };
        let (start, end) =
            (around("add_bos_token", "bos_token")?, around("add_eos_token", "eos_token")?);
        if tokens.is_empty() {
            return Ok(());
        }
        let single: Vec<String> = start.into_iter().chain(["$A".to_owned()]).chain(end).collect();
        tokens.dedup();
        let template = TemplateProcessing::builder()
            .try_single(single)
            .and_then(|b| b.special_tokens(tokens).build().map_err(|e| e.to_string()))
            .map_err(|e| Error::json(&self.path, e))?;
        inner.with_post_processor(Some(template));
        Ok(())
    }
}

fn add(inner: &mut tokenizers::Tokenizer, token: AddedToken, path: &Path) -> Result<()> {
    let added = guarded(|| inner.add_tokens([token]));
    added.map(drop).map_err(|e| Error::Tokenizer(format!("{}: {e}", path.display())))
}

/// Parses a token: a string, or an object with flags.
fn token_of(value: &Value) -> Option<AddedToken> {
    let object = match value {
        Value::String(content) => return Some(AddedToken::from(content.clone(), true)),
        Value::Object(object) => object,
        _ => return None,
    };
    let flag = |key: &str, default: bool| match object.get(key) {
        None | Some(Value::Null) => Some(default),
        Some(value) => value.as_bool(),
    };
    let special = flag("special", false)?;
    let token = AddedToken::from(object.get("content")?.as_str()?.to_owned(), special);
    Some(
        token
            .single_word(flag("single_word", false)?)
            .lstrip(flag("lstrip", false)?)
            .rstrip(flag("rstrip", false)?)
            .normalized(flag("normalized", true)?),
    )
}

/// Returns whether a normalizer adds SentencePiece's space in front of texts.
fn prepends(normalizer: &NormalizerWrapper) -> bool {
    match normalizer {
        NormalizerWrapper::Prepend(prepend) => prepend.prepend == "▁",
        NormalizerWrapper::Sequence(sequence) => sequence.as_ref().iter().any(prepends),
        _ => false,
    }
}

/// Reads `tokenizer.json` alone, without the settings of the other files.
pub(super) fn read_tokenizer(dir: &Path) -> Result<tokenizers::Tokenizer> {
    let path = dir.join("tokenizer.json");
    let invalid = |problem: String| Error::Tokenizer(format!("{}: {problem}", path.display()));
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let others = ["tokenizer.model", "vocab.json", "tekken.json", "tokenizer.tiktoken"];
            return Err(match others.into_iter().find(|name| dir.join(name).exists()) {
                Some(other) => invalid(format!(
                    "there is no such file, only {other}; take tokenizer.json from the model's \
                     page, or let transformers' AutoTokenizer save one"
                )),
                None => Error::io(&path)(error),
            });
        }
        Err(error) => return Err(Error::io(&path)(error)),
    };
    guarded(|| tokenizers::Tokenizer::from_bytes(&bytes)).map_err(|problem| {
        let syntax = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).err();
        invalid(match syntax {
            Some(error) => syntax_problem(&bytes, &error),
            None => recognise(&bytes).unwrap_or(problem),
        })
    })
}
