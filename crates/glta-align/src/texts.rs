//! Writes profiles and predictions of users with the language model.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use glta_core::{Progress, report};
use glta_llm::GenerateOptions;
use serde::{Deserialize, Serialize};

use crate::config::TextsConfig;
use crate::data::RunData;
use crate::files::{RunFolder, TEXTS, read, write_whole};
use crate::language::LanguageModel;
use crate::progress::Event;
use crate::sampling::text_items;
use crate::template::{Fill, Span};
use crate::{Error, Result, Templates};

/// The profile and the prediction of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserTexts {
    /// Dense user id.
    pub user: u32,
    /// Training items from whose descriptions the texts were written.
    pub items: Vec<u32>,
    /// Tags that describe the user.
    pub profile: String,
    /// Predicted interests of the user.
    pub prediction: String,
}

/// First line of the file `texts.jsonl`, with the settings that produced the texts.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    /// Hash of the checkpoint that wrote the texts.
    checkpoint: String,
    layers: usize,
    seed: u64,
    words: usize,
    max_items: usize,
    max_share: String,
    max_tokens: usize,
    profile: Option<String>,
    prediction: Option<String>,
}

impl Header {
    /// Returns whether texts with this header can be used for `wanted`, which may need only
    /// profiles or only predictions.
    fn serves(&self, wanted: &Self) -> bool {
        let same = |own: &Option<String>, other: &Option<String>| other.is_none() || own == other;
        let part = |header: &Self| {
            let Self { checkpoint, layers, seed, words, max_items, max_share, max_tokens, .. } =
                header;
            (checkpoint.clone(), *layers, *seed, *words, *max_items, max_share.clone(), *max_tokens)
        };
        part(self) == part(wanted)
            && same(&self.profile, &wanted.profile)
            && same(&self.prediction, &wanted.prediction)
    }
}

/// Number of users per rank in one call of the language model, whose texts are saved together.
const CHUNK: usize = 64;

/// Writes the missing texts of all users with training items to the file, and returns all texts by
/// user. If the process is killed, it loses at most the texts of the current call. Users are
/// divided among the ranks.
pub(crate) fn write_texts(
    data: &RunData,
    language: &LanguageModel,
    config: &TextsConfig,
    seed: u64,
    folder: &RunFolder,
    progress: &mut dyn Progress<Event>,
) -> Result<BTreeMap<u32, UserTexts>> {
    let (comm, path) = (folder.comm(), &folder.file(TEXTS));
    let prompt = |wanted: bool, text: &String| wanted.then(|| text.clone());
    // Only rank 0 reads the checkpoint for the header.
    let header = || -> Result<Header> {
        Ok(Header {
            checkpoint: language.checkpoint_hash()?.to_owned(),
            layers: language.whole_layers(),
            seed,
            words: config.words,
            max_items: config.max_items,
            max_share: config.max_share.to_string(),
            max_tokens: config.max_tokens,
            profile: prompt(config.profile, &language.templates.profile),
            prediction: prompt(config.prediction, &language.templates.prediction),
        })
    };
    folder.write(TEXTS, |path| {
        if path.exists() {
            return repair(path, &header()?);
        }
        let mut line = to_line(path, &header()?)?;
        line.push(b'\n');
        write_whole(path, &line)
    })?;
    let mut done = read_texts(path)?;
    // No rank may append before all ranks have read.
    comm.barrier()?;
    let open: Vec<(u32, Vec<u32>)> = (0..data.users.len() as u32)
        .filter(|user| !done.contains_key(user))
        .map(|user| (user, text_items(data.train.items(user), user, config, seed)))
        .filter(|(_, items)| !items.is_empty())
        .collect();
    let total = done.len() + open.len();
    let append = || OpenOptions::new().append(true).open(path).map_err(|e| Error::io(path, e));
    let mut file = comm.is_root().then(append).transpose()?;
    for chunk in open.chunks(CHUNK * comm.size()) {
        report(progress, &Event::Texts { done: done.len(), total })?;
        let chunk = &chunk[comm.share(chunk.len())];
        let write = |wanted: bool, template: &str| -> Result<Vec<String>> {
            if !wanted || chunk.is_empty() {
                return Ok(vec![String::new(); chunk.len()]);
            }
            generate(data, language, config, template, chunk, seed)
        };
        let profiles = write(config.profile, &language.templates.profile)?;
        let predictions = write(config.prediction, &language.templates.prediction)?;
        let mut lines = Vec::new();
        for (((user, items), profile), prediction) in chunk.iter().zip(profiles).zip(predictions) {
            let texts = UserTexts { user: *user, items: items.clone(), profile, prediction };
            lines.extend(to_line(path, &texts)?);
            lines.push(b'\n');
        }
        // The order of the ranks is that of the users.
        let lines = comm.all_gather(&lines)?.concat();
        if let Some(file) = &mut file {
            let written = file.write_all(&lines).and_then(|()| file.sync_data());
            written.map_err(|e| Error::io(path, e))?;
        }
        for line in lines.split(|&b| b == b'\n').filter(|l| !l.is_empty()) {
            let texts: UserTexts =
                serde_json::from_slice(line).map_err(|e| Error::file(path, e))?;
            done.insert(texts.user, texts);
        }
    }
    report(progress, &Event::Texts { done: done.len(), total })?;
    Ok(done)
}

/// Reads the file `texts.jsonl` of a run. Returns the texts by dense user id.
///
/// # Errors
/// Returns [`Error::File`] or [`Error::Io`] if the file is missing or damaged.
pub fn read_texts(path: impl AsRef<Path>) -> Result<BTreeMap<u32, UserTexts>> {
    let (_, _, texts) = parse(path.as_ref())?;
    Ok(texts)
}

/// Returns an error if the texts were written by a different model, with different prompts or with
/// different settings. Removes an incomplete last line, which a killed process may leave.
fn repair(path: &Path, header: &Header) -> Result<()> {
    let (found, whole, _) = parse(path)?;
    if !found.serves(header) {
        return Err(Error::file(
            path,
            "these texts were written by another model, or with other prompts or settings; delete \
             the file to write them again",
        ));
    }
    let bytes = read(path)?;
    if whole < bytes.len() {
        write_whole(path, &bytes[..whole])?;
    }
    Ok(())
}

/// Parses the file `texts.jsonl`. Returns the header, the length of the complete lines in bytes,
/// and the texts by user.
fn parse(path: &Path) -> Result<(Header, usize, BTreeMap<u32, UserTexts>)> {
    let bytes = read(path)?;
    let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
    let mut lines = bytes[..whole].split(|&b| b == b'\n').filter(|l| !l.is_empty());
    let header = lines.next().ok_or_else(|| Error::file(path, "the first line is missing"))?;
    let invalid =
        |line: usize, e: serde_json::Error| Error::file(path, format!("line {line}: {e}"));
    let header = serde_json::from_slice(header).map_err(|e| invalid(1, e))?;
    let mut texts = BTreeMap::new();
    for (n, line) in lines.enumerate() {
        let line: UserTexts = serde_json::from_slice(line).map_err(|e| invalid(n + 2, e))?;
        texts.insert(line.user, line);
    }
    Ok((header, whole, texts))
}

fn to_line(path: &Path, value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::file(path, e))
}

fn generate(
    data: &RunData,
    language: &LanguageModel,
    config: &TextsConfig,
    template: &str,
    users: &[(u32, Vec<u32>)],
    seed: u64,
) -> Result<Vec<String>> {
    let words = config.words.to_string();
    let mut prompts = Vec::with_capacity(users.len());
    for (_, items) in users {
        let descriptions: Vec<&str> =
            items.iter().map(|&i| data.items[i as usize].text.as_str()).collect();
        let descriptions = descriptions.join(&language.templates.separator);
        let spans = Templates::render(template, |name| match name {
            "K" => Some(Fill::Text(&words)),
            _ => Some(Fill::Text(&descriptions)),
        });
        let text: String = spans
            .into_iter()
            .map(|span| match span {
                Span::Text(text) => text,
                Span::Soft(_) => String::new(),
            })
            .collect();
        prompts.push(text);
    }
    let options =
        GenerateOptions { max_new_tokens: config.max_tokens, seed, ..GenerateOptions::default() };
    let texts = language.writer()?.generate_text(&language.tokenizer, &prompts, &options)?;
    Ok(texts.iter().map(|text| clean(text)).collect())
}

/// Returns the first non-empty line, with collapsed white space.
fn clean(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or_default();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_texts_are_cut_to_one_line() {
        assert_eq!(clean("\n  dark   comedy,\tnoir \nSecond"), "dark comedy, noir");
        assert_eq!(clean(" \n "), "");
    }

    #[test]
    fn an_incomplete_line_is_removed_and_other_settings_are_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("texts.jsonl");
        let header = |seed| Header {
            checkpoint: "c".into(),
            layers: 2,
            seed,
            words: 5,
            max_items: 8,
            max_share: "0.5".into(),
            max_tokens: 9,
            profile: Some("p".into()),
            prediction: None,
        };
        let texts = |user| UserTexts {
            user,
            items: vec![1],
            profile: "é".into(),
            prediction: String::new(),
        };
        let mut bytes = to_line(&path, &header(1)).unwrap();
        for user in [3, 5] {
            bytes.push(b'\n');
            bytes.extend(to_line(&path, &texts(user)).unwrap());
        }
        std::fs::write(&path, &bytes[..bytes.len() - 4]).unwrap();
        repair(&path, &header(1)).unwrap();
        assert_eq!(read_texts(&path).unwrap(), BTreeMap::from([(3, texts(3))]));
        assert_eq!(read(&path).unwrap().last(), Some(&b'\n'));
        let none = Header { profile: None, ..header(1) };
        assert!(repair(&path, &none).is_ok(), "one text less is asked for");
        let more = Header { prediction: Some("p".into()), ..header(1) };
        assert!(repair(&path, &more).is_err());
        let message = repair(&path, &header(2)).unwrap_err().to_string();
        assert!(message.contains("delete the file"), "{message}");
    }
}
