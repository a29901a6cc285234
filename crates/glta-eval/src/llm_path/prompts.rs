//! Prompts with the titles of a user's items.

use glta_align::LanguageModel;
use glta_data::{Dataset, TextConfig};
use rand::Rng;
use rand::seq::SliceRandom;

use super::config::LlmPathConfig;
use crate::Result;

const HEAD: &str = "Things that one person chose:\n";
const TAIL: &str = "The same person also chose:\n-";
/// The title of an item without a text.
const UNTITLED: &str = "untitled";

/// The titles of all items, each cut to a maximum number of tokens.
pub(crate) struct Prompts<'a> {
    language: &'a LanguageModel,
    titles: Vec<String>,
    /// Token ids of each title as the continuation of a prompt.
    tokens: Vec<Vec<u32>>,
    most: usize,
}

impl<'a> Prompts<'a> {
    pub(crate) fn new(
        language: &'a LanguageModel,
        dataset: &Dataset,
        texts: &TextConfig,
        config: &LlmPathConfig,
    ) -> Result<Self> {
        let tokenizer = &language.tokenizer;
        let (mut titles, mut tokens) = (Vec::new(), Vec::new());
        for (item, text) in dataset.items().iter().zip(dataset.texts(texts)?) {
            let title = if item.title.trim().is_empty() { &text } else { &item.title };
            let title = title.split_whitespace().collect::<Vec<_>>().join(" ");
            let mut ids = tokenizer.encode(&title, false).map_err(glta_align::Error::from)?;
            ids.truncate(config.title_tokens);
            let cut = tokenizer.decode(&ids).map_err(glta_align::Error::from)?;
            let cut = if cut.trim().is_empty() { UNTITLED } else { cut.trim() };
            let behind = tokenizer.encode_continuation(&format!(" {cut}"));
            tokens.push(behind.map_err(glta_align::Error::from)?);
            titles.push(cut.to_owned());
        }
        Ok(Self { language, titles, tokens, most: config.titles })
    }

    /// Returns the token ids of a prompt with the titles of at most `llm_path.titles` items in
    /// random order.
    pub(crate) fn history(&self, items: &[u32], rng: &mut impl Rng) -> Result<Vec<u32>> {
        let mut shown = items.to_vec();
        shown.shuffle(rng);
        shown.truncate(self.most);
        let lines = shown.iter().map(|&item| format!("- {}\n", self.titles[item as usize]));
        let text = format!("{HEAD}{}{TAIL}", lines.collect::<String>());
        Ok(self.language.tokenizer.encode(&text, true).map_err(glta_align::Error::from)?)
    }

    /// Joins the titles of items into one text.
    pub(crate) fn as_text(&self, items: &[u32]) -> String {
        let titles = items.iter().map(|&item| self.titles[item as usize].as_str());
        titles.collect::<Vec<_>>().join(". ")
    }

    /// Returns the token ids of a title as the continuation of a prompt; never empty.
    pub(crate) fn title(&self, item: u32) -> &[u32] {
        &self.tokens[item as usize]
    }
}

/// Divides a user's items into a random part of 40 to 90 % and the rest. Both parts contain at
/// least one item. Returns `None` for fewer than two items.
pub(crate) fn divide(items: &[u32], rng: &mut impl Rng) -> Option<(Vec<u32>, Vec<u32>)> {
    if items.len() < 2 {
        return None;
    }
    let share = rng.random_range(0.4..0.9);
    let shown = ((share * items.len() as f64).round() as usize).clamp(1, items.len() - 1);
    let mut all = items.to_vec();
    all.shuffle(rng);
    let hidden = all.split_off(shown);
    Some((all, hidden))
}
