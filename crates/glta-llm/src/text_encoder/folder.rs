use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_transformers::models::bert::Config;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// Settings of a sentence-transformers folder.
pub(super) struct Folder {
    /// Path of the folder with the transformer's files.
    pub(super) transformer: PathBuf,
    pub(super) config: Config,
    /// Maximum number of tokens per text, including special tokens.
    pub(super) max_tokens: usize,
    pub(super) lower_case: bool,
    /// Whether vectors are scaled to unit norm.
    pub(super) normalize: bool,
}

/// An entry of `modules.json`.
#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

/// The content of `sentence_bert_config.json`.
#[derive(Default, Deserialize)]
struct Reading {
    max_seq_length: Option<usize>,
    #[serde(default)]
    do_lower_case: bool,
}

impl Folder {
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let path = dir.join("modules.json");
        let modules: Vec<Module> = json(&path)?;
        let kinds: Vec<&str> =
            modules.iter().map(|m| m.kind.rsplit('.').next().unwrap_or_default()).collect();
        let normalize = match kinds[..] {
            ["Transformer", "Pooling"] => false,
            ["Transformer", "Pooling", "Normalize"] => true,
            _ => {
                return Err(Error::encoder(
                    &path,
                    format!("modules {kinds:?}: expected Transformer, Pooling, maybe Normalize"),
                ));
            }
        };
        let pooling = dir.join(&modules[1].path).join("config.json");
        check_pooling(&pooling)?;

        let transformer = dir.join(&modules[0].path);
        let path = transformer.join("config.json");
        let config: Config = json(&path)?;
        let problem = match &config {
            c if c.model_type.as_deref().is_some_and(|m| m != "bert") => {
                format!("model_type {:?} is not bert", c.model_type.as_deref().unwrap_or_default())
            }
            c if c.num_attention_heads == 0 || c.hidden_size % c.num_attention_heads != 0 => {
                format!("hidden_size {} over {} heads", c.hidden_size, c.num_attention_heads)
            }
            c if c.hidden_size == 0 || c.type_vocab_size == 0 => "a size is 0".into(),
            _ => String::new(),
        };
        if !problem.is_empty() {
            return Err(Error::encoder(&path, problem));
        }

        let path = transformer.join("sentence_bert_config.json");
        let reading: Reading = if path.exists() { json(&path)? } else { Reading::default() };
        let max_tokens = reading.max_seq_length.unwrap_or(config.max_position_embeddings);
        // Two of the tokens are the special tokens at the start and at the end.
        if max_tokens < 3 || max_tokens > config.max_position_embeddings {
            let most = config.max_position_embeddings;
            return Err(Error::encoder(
                &path,
                format!("max_seq_length {max_tokens} is not between 3 and {most}"),
            ));
        }
        let lower_case = reading.do_lower_case;
        Ok(Self { transformer, config, max_tokens, lower_case, normalize })
    }
}

/// Checks that the pooling is the mean over tokens, which is the only supported pooling.
fn check_pooling(path: &Path) -> Result<()> {
    let settings: BTreeMap<String, serde_json::Value> = json(path)?;
    let modes: Vec<&str> = settings
        .iter()
        .filter(|(_, value)| **value == serde_json::Value::Bool(true))
        .filter_map(|(name, _)| name.strip_prefix("pooling_mode_"))
        .collect();
    match modes[..] {
        ["mean_tokens"] => Ok(()),
        _ => Err(Error::encoder(path, format!("pooling by {modes:?}: expected mean_tokens alone"))),
    }
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read(path).map_err(|e| Error::encoder(path, e))?;
    serde_json::from_slice(&text).map_err(|e| Error::encoder(path, e))
}
