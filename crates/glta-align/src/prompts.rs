//! Renders the prompts of examples: text tokens and soft tokens in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use glta_llm::Prefix;
use glta_projector::Piece;
use rayon::prelude::*;

use crate::config::{Config, ItemSlots, SlotPlacement};
use crate::data::RunData;
use crate::language::LanguageModel;
use crate::lazy::Lazy;
use crate::sampling::{ItemExample, UserExample};
use crate::template::{Fill, Span};
use crate::texts::UserTexts;
use crate::{Result, Templates};

/// The prompts of both stages for one language model.
#[derive(Debug)]
pub(crate) struct Prompts {
    language: LanguageModel,
    data: Arc<RunData>,
    /// Common parts of stage-2 prompts, created on first use.
    item: Lazy<ItemPrompts>,
    max_tokens: usize,
    item_slots: ItemSlots,
    placement: SlotPlacement,
    profile: bool,
    prediction: bool,
    user_id_text: bool,
    texts: BTreeMap<u32, UserTexts>,
    user: Opening,
}

/// The common parts of the prompts of stage 2.
#[derive(Debug)]
struct ItemPrompts {
    template: String,
    opening: Opening,
    /// Item texts, truncated to the configured number of tokens. They are kept as text, because a
    /// prompt is tokenised as a whole: the last token of a description may merge with the
    /// separator.
    descriptions: Vec<String>,
}

/// The pieces of a prompt, and the positions of its slots' hidden states.
pub(crate) struct Row {
    pub(crate) pieces: Vec<Piece>,
    pub(crate) slots: Vec<usize>,
}

impl Prompts {
    pub(crate) fn new(
        language: LanguageModel,
        data: Arc<RunData>,
        texts: BTreeMap<u32, UserTexts>,
        config: &Config,
    ) -> Result<Self> {
        Ok(Self {
            user: Opening::new(&language, &language.templates.user, !config.model.user_id_text)?,
            item: Lazy::default(),
            max_tokens: config.item_stage.max_tokens,
            item_slots: config.item_stage.slots,
            placement: config.model.slot_placement,
            profile: config.texts.profile,
            prediction: config.texts.prediction,
            user_id_text: config.model.user_id_text,
            texts,
            language,
            data,
        })
    }

    /// Returns the common parts of stage-2 prompts. They are created on first use, because
    /// recommendations do not need them.
    fn item(&self) -> Result<&ItemPrompts> {
        self.item.get(|| {
            let items = self.data.items.par_iter();
            let descriptions = items
                .map(|item| cut(&self.language, &item.text, self.max_tokens))
                .collect::<Result<_>>()?;
            let template = match self.item_slots {
                ItemSlots::Description => self.language.templates.items_first(),
                ItemSlots::Place | ItemSlots::Token => self.language.templates.item.clone(),
            };
            let opening = Opening::new(&self.language, &template, false)?;
            Ok(ItemPrompts { template, opening, descriptions })
        })
    }

    pub(crate) fn language(&self) -> &LanguageModel {
        &self.language
    }

    pub(crate) fn item_prefix(&self) -> Result<Option<&Prefix>> {
        Ok(self.item()?.opening.prefix.as_ref())
    }

    pub(crate) fn user_prefix(&self) -> Option<&Prefix> {
        self.user.prefix.as_ref()
    }

    /// Returns the items from whose descriptions the user's texts were written, in ascending order.
    pub(crate) fn text_items(&self, user: u32) -> &[u32] {
        self.texts.get(&user).map_or(&[], |texts| &texts.items)
    }

    /// Returns the length of the variable part of a stage-2 prompt in bytes, to compare the lengths
    /// of prompts.
    pub(crate) fn item_length(&self, example: &ItemExample) -> Result<usize> {
        let texts = &self.item()?.descriptions;
        Ok(example.descriptions.iter().map(|&i| texts[i as usize].len()).sum())
    }

    /// Returns the length of the variable part of a stage-3 prompt in bytes. A soft token counts as
    /// four bytes.
    pub(crate) fn user_length(&self, example: &UserExample) -> usize {
        let (profile, prediction) = self.user_texts(example);
        let texts: usize = [profile, prediction].into_iter().flatten().map(str::len).sum();
        4 * example.shown.len() + texts
    }

    /// Returns the profile and the prediction that the user's prompt contains.
    fn user_texts(&self, example: &UserExample) -> (Option<&str>, Option<&str>) {
        let texts = example.user.filter(|_| example.texts).and_then(|user| self.texts.get(&user));
        let text = |wanted: bool, pick: fn(&UserTexts) -> &str| {
            texts.filter(|_| wanted).map(pick).filter(|text| !text.is_empty())
        };
        (text(self.profile, |t| &t.profile), text(self.prediction, |t| &t.prediction))
    }

    /// Renders a stage-2 prompt. `items` are the soft tokens of its items in order, and `slots` the
    /// soft tokens of its slots.
    pub(crate) fn item_row(
        &self,
        example: &ItemExample,
        items: &[u32],
        slots: &[u32],
    ) -> Result<Row> {
        let ItemPrompts { template, opening, descriptions } = self.item()?;
        let descriptions: Vec<&str> =
            example.descriptions.iter().map(|&i| descriptions[i as usize].as_str()).collect();
        let separator = self.language.templates.separator.as_str();
        let tokens = Some(Fill::Soft(items.len()));
        if self.item_slots == ItemSlots::Description {
            let soft = [items, slots].concat();
            let pieces = self.pieces(template, opening, &soft, |name| match name {
                "DESCRIPTIONS" => Some(Fill::Marked(&descriptions, separator)),
                _ => tokens,
            })?;
            return Ok(up_to_last(pieces, slots));
        }
        let descriptions = descriptions.join(separator);
        let pieces = self.pieces(template, opening, items, |name| match name {
            "DESCRIPTIONS" => Some(Fill::Text(&descriptions)),
            _ => tokens,
        })?;
        Ok(place(pieces, slots, self.placement, slots.len()))
    }

    /// Renders a stage-3 prompt. `user` and `shown` are the soft tokens of the user (not used if
    /// the prompt has the user's number) and of the shown items. `slots` are the soft tokens of the
    /// slots. With [`SlotPlacement::Last`] there are no soft tokens of slots, and the slots are the
    /// last `n_slots` positions.
    pub(crate) fn user_row(
        &self,
        example: &UserExample,
        user: u32,
        shown: &[u32],
        slots: &[u32],
        n_slots: usize,
    ) -> Result<Row> {
        let (profile, prediction) = self.user_texts(example);
        let number = example.user.map_or_else(|| "unknown".to_owned(), |user| user.to_string());
        let user = (!self.user_id_text).then_some(user);
        let soft: Vec<u32> = user.into_iter().chain(shown.iter().copied()).collect();
        let template = &self.language.templates.user;
        let pieces = self.pieces(template, &self.user, &soft, |name| match name {
            "USER" if self.user_id_text => Some(Fill::Text(&number)),
            "USER" => Some(Fill::Soft(1)),
            "ITEMS" => (!shown.is_empty()).then_some(Fill::Soft(shown.len())),
            "PROFILE" => profile.map(Fill::Text),
            _ => prediction.map(Fill::Text),
        })?;
        Ok(place(pieces, slots, self.placement, n_slots))
    }

    /// Renders the part of the prompt after the opening, with the soft tokens in order. Each text
    /// is tokenised together with the static text before it, or as a continuation after soft
    /// tokens, so that its token ids are those of the whole prompt.
    fn pieces<'a>(
        &self,
        template: &str,
        opening: &Opening,
        soft: &[u32],
        fill: impl Fn(&str) -> Option<Fill<'a>>,
    ) -> Result<Vec<Piece>> {
        let fixed = Templates::static_prefix(template);
        let mut spans = Templates::render(&template[fixed.len()..], fill).into_iter().peekable();
        let leading = match spans.next_if(|span| matches!(span, Span::Text(_))) {
            Some(Span::Text(text)) => text,
            _ => String::new(),
        };
        let mut soft = soft.iter();
        let first = opening.continued(&self.language, fixed, &leading)?;
        let mut pieces = Vec::new();
        if !first.is_empty() {
            pieces.push(Piece::Tokens(first));
        }
        for span in spans {
            match span {
                Span::Text(text) => {
                    let ids = self.language.tokenizer.encode_continuation(&text)?;
                    pieces.push(Piece::Tokens(ids));
                }
                Span::Soft(n) => pieces.extend(soft.by_ref().take(n).map(|&i| Piece::Soft(i))),
            }
        }
        Ok(pieces)
    }
}

/// The common start of all prompts of a template.
#[derive(Debug)]
struct Opening {
    ids: Vec<u32>,
    /// Token ids at the end of the static text that may merge with the next text.
    tail: Vec<u32>,
    /// Keys and values of `ids`, or `None` if `ids` is empty.
    prefix: Option<Prefix>,
}

impl Opening {
    /// Computes the opening of a template. If `soft` is true, soft tokens follow the static text,
    /// which is then tokenised alone.
    fn new(language: &LanguageModel, template: &str, soft: bool) -> Result<Self> {
        let fixed = Templates::static_prefix(template);
        let mut ids = language.tokenizer.encode(fixed, true)?;
        let mut kept = ids.len();
        // The last tokens may merge with the next text, for example a space with a word.
        for follows in if soft { &[][..] } else { &["a", "A", " a", "1", "\n", "(", "é"] } {
            let whole = language.tokenizer.encode(&format!("{fixed}{follows}"), true)?;
            let same = ids.iter().zip(&whole).take_while(|(a, b)| a == b).count();
            kept = kept.min(same);
        }
        let tail = ids.split_off(kept);
        let prefix = if ids.is_empty() { None } else { Some(language.llama.prefix(&ids)?) };
        Ok(Self { ids, tail, prefix })
    }

    /// Returns the token ids of the static text `fixed` and the text `leading` after it, without
    /// the ids of the opening.
    fn continued(&self, language: &LanguageModel, fixed: &str, leading: &str) -> Result<Vec<u32>> {
        if leading.is_empty() {
            return Ok(self.tail.clone());
        }
        let whole = language.tokenizer.encode(&format!("{fixed}{leading}"), true)?;
        match whole.strip_prefix(&self.ids[..]) {
            Some(rest) => Ok(rest.to_vec()),
            None => {
                Ok([&self.tail[..], &language.tokenizer.encode_continuation(leading)?].concat())
            }
        }
    }
}

fn place(mut pieces: Vec<Piece>, slots: &[u32], placement: SlotPlacement, n_slots: usize) -> Row {
    let slot_pieces = slots.iter().map(|&s| Piece::Soft(s));
    match placement {
        // The model is causal, so text after the slots has no effect.
        SlotPlacement::Prefix => {
            Row { pieces: slot_pieces.collect(), slots: (0..n_slots).collect() }
        }
        SlotPlacement::Response | SlotPlacement::Last => {
            if placement == SlotPlacement::Response {
                pieces.extend(slot_pieces);
            }
            let len: usize = pieces.iter().map(length).sum();
            Row { pieces, slots: (len.saturating_sub(n_slots)..len).collect() }
        }
    }
}

/// Truncates a prompt after its last slot, and returns it with the positions of the slots.
fn up_to_last(mut pieces: Vec<Piece>, slots: &[u32]) -> Row {
    let is_slot = |piece: &Piece| matches!(piece, Piece::Soft(soft) if slots.contains(soft));
    pieces.truncate(pieces.iter().rposition(is_slot).map_or(0, |last| last + 1));
    let (mut at, mut places) = (0, Vec::with_capacity(slots.len()));
    for piece in &pieces {
        if is_slot(piece) {
            places.push(at);
        }
        at += length(piece);
    }
    Row { pieces, slots: places }
}

fn length(piece: &Piece) -> usize {
    match piece {
        Piece::Tokens(ids) => ids.len(),
        Piece::Soft(_) => 1,
    }
}

/// Truncates a text to its first `max_tokens` tokens.
fn cut(language: &LanguageModel, text: &str, max_tokens: usize) -> Result<String> {
    let ids = language.tokenizer.encode(text, false)?;
    if ids.len() <= max_tokens {
        return Ok(text.to_owned());
    }
    Ok(language.tokenizer.decode(&ids[..max_tokens])?.trim_end_matches('\u{fffd}').to_owned())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use glta_data::{Interactions, TextConfig};
    use glta_llm::LlamaOptions;

    use super::*;
    use crate::config::{Density, Preset};
    use crate::data::ItemRecord;
    use crate::sampling::inference_example;

    #[test]
    fn descriptions_are_cut_once_and_only_for_stage_2() {
        let folder = tempfile::tempdir().unwrap();
        crate::tiny_llm::write(folder.path());
        let options = LlamaOptions::default();
        let language = LanguageModel::load(folder.path(), &options, &Device::Cpu).unwrap();
        let text = ["a short text", "one that is cut inside é", ""];
        let item = |text: &str| ItemRecord {
            raw_id: text.into(),
            title: String::new(),
            text: text.into(),
            fields: Default::default(),
        };
        let none = Interactions::from_pairs(1, 3, []).unwrap();
        let data = RunData {
            users: vec!["ann".into()],
            items: text.iter().map(|text| item(text)).collect(),
            train: Arc::new(none.clone()),
            valid: none,
            texts: TextConfig::default(),
        };
        let mut config = Config::preset(Preset::Full, Density::Dense);
        // Each token is a byte, so the limit would cut `é` in half. It is removed instead.
        config.item_stage.max_tokens = 24;
        let prompts =
            Prompts::new(language.clone(), Arc::new(data), BTreeMap::new(), &config).unwrap();
        let example = inference_example(Some(0), &[], 0, 1);
        prompts.user_row(&example, 0, &[], &[1], 1).unwrap();
        assert!(!prompts.item.is_made());

        let example = ItemExample { items: vec![0, 1, 2], descriptions: vec![1, 2, 0] };
        let row = prompts.item_row(&example, &[0, 1, 2], &[3, 4, 5]).unwrap();
        assert!(prompts.item.is_made());
        let cut = "one that is cut inside ";
        let separator = &language.templates.separator;
        let texts = format!("{cut}{separator}{separator}a short text");
        let template = &language.templates.item;
        let filled = template.replace("{DESCRIPTIONS}", &texts);
        let (before, after) = filled.split_once("{ITEMS}").unwrap();
        let tokenizer = &language.tokenizer;
        let whole = tokenizer.encode(before, true).unwrap();
        let opening = prompts.item_prefix().unwrap().map_or(0, Prefix::len);
        assert!(opening > 0 && opening < whole.len());
        let mut pieces = vec![Piece::Tokens(whole[opening..].to_vec())];
        pieces.extend([0, 1, 2].map(Piece::Soft));
        pieces.push(Piece::Tokens(tokenizer.encode_continuation(after).unwrap()));
        pieces.extend([3, 4, 5].map(Piece::Soft));
        assert_eq!(row.pieces, pieces);
    }
}
