//! From examples to prompts: text tokens and soft tokens in order.

use std::collections::BTreeMap;

use glta_llm::Prefix;
use glta_projector::Piece;

use crate::config::{Config, ItemSlots, SlotPlacement};
use crate::data::ItemRecord;
use crate::language::LanguageModel;
use crate::sampling::{ItemExample, UserExample};
use crate::template::{Fill, Span};
use crate::texts::UserTexts;
use crate::{Result, Templates};

/// The prompts of both stages for one language model.
#[derive(Debug)]
pub(crate) struct Prompts {
    language: LanguageModel,
    /// Stage 2's prompt.
    item: String,
    item_slots: ItemSlots,
    placement: SlotPlacement,
    profile: bool,
    prediction: bool,
    user_id_text: bool,
    /// Item texts, cut to the configured number of tokens.
    descriptions: Vec<String>,
    texts: BTreeMap<u32, UserTexts>,
    item_prefix: Option<Prefix>,
    user_prefix: Option<Prefix>,
}

/// A prompt's pieces, and where the hidden states of its slots will be.
pub(crate) struct Row {
    pub(crate) pieces: Vec<Piece>,
    pub(crate) slots: Vec<usize>,
}

impl Prompts {
    pub(crate) fn new(
        language: LanguageModel,
        items: &[ItemRecord],
        texts: BTreeMap<u32, UserTexts>,
        config: &Config,
    ) -> Result<Self> {
        let descriptions = items
            .iter()
            .map(|item| cut(&language, &item.text, config.item_stage.max_tokens))
            .collect::<Result<_>>()?;
        let prefix = |template: &str| -> Result<Option<Prefix>> {
            let ids = language.tokenizer.encode(Templates::static_prefix(template), true)?;
            Ok(if ids.is_empty() { None } else { Some(language.llama.prefix(&ids)?) })
        };
        let item = match config.item_stage.slots {
            ItemSlots::Description => language.templates.items_first(),
            ItemSlots::Place | ItemSlots::Token => language.templates.item.clone(),
        };
        Ok(Self {
            item_prefix: prefix(&item)?,
            user_prefix: prefix(&language.templates.user)?,
            item,
            item_slots: config.item_stage.slots,
            placement: config.model.slot_placement,
            profile: config.texts.profile,
            prediction: config.texts.prediction,
            user_id_text: config.model.user_id_text,
            descriptions,
            texts,
            language,
        })
    }

    pub(crate) fn language(&self) -> &LanguageModel {
        &self.language
    }

    pub(crate) fn item_prefix(&self) -> Option<&Prefix> {
        self.item_prefix.as_ref()
    }

    pub(crate) fn user_prefix(&self) -> Option<&Prefix> {
        self.user_prefix.as_ref()
    }

    /// Items whose descriptions the writer of the user's texts saw, ascending.
    pub(crate) fn text_items(&self, user: u32) -> &[u32] {
        self.texts.get(&user).map_or(&[], |texts| &texts.items)
    }

    /// Bytes of what differs between stage-2 prompts: how they compare in length.
    pub(crate) fn item_length(&self, example: &ItemExample) -> usize {
        example.descriptions.iter().map(|&i| self.descriptions[i as usize].len()).sum()
    }

    /// The same of stage-3 prompts; a soft token counts as a short word.
    pub(crate) fn user_length(&self, example: &UserExample) -> usize {
        let (profile, prediction) = self.user_texts(example);
        let texts: usize = [profile, prediction].into_iter().flatten().map(str::len).sum();
        4 * example.shown.len() + texts
    }

    /// Profile and prediction that the user's prompt holds.
    fn user_texts(&self, example: &UserExample) -> (Option<&str>, Option<&str>) {
        let texts = example.user.filter(|_| example.texts).and_then(|user| self.texts.get(&user));
        let text = |wanted: bool, pick: fn(&UserTexts) -> &str| {
            texts.filter(|_| wanted).map(pick).filter(|text| !text.is_empty())
        };
        (text(self.profile, |t| &t.profile), text(self.prediction, |t| &t.prediction))
    }

    /// A stage-2 prompt; `items` are the soft tokens of its items in order,
    /// `slots` those of its slots.
    pub(crate) fn item_row(
        &self,
        example: &ItemExample,
        items: &[u32],
        slots: &[u32],
    ) -> Result<Row> {
        let descriptions: Vec<&str> =
            example.descriptions.iter().map(|&i| self.descriptions[i as usize].as_str()).collect();
        let separator = self.language.templates.separator.as_str();
        let tokens = Some(Fill::Soft(items.len()));
        if self.item_slots == ItemSlots::Description {
            let soft = [items, slots].concat();
            let pieces = self.pieces(&self.item, &soft, |name| match name {
                "DESCRIPTIONS" => Some(Fill::Marked(&descriptions, separator)),
                _ => tokens,
            })?;
            return Ok(up_to_last(pieces, slots));
        }
        let descriptions = descriptions.join(separator);
        let pieces = self.pieces(&self.item, items, |name| match name {
            "DESCRIPTIONS" => Some(Fill::Text(&descriptions)),
            _ => tokens,
        })?;
        Ok(place(pieces, slots, self.placement, slots.len()))
    }

    /// A stage-3 prompt; `user` and `shown` are the soft tokens of the user (unused
    /// where the user's number stands for it) and of the shown items, `slots` those of the slots (none of their own under
    /// [`SlotPlacement::Last`], where the last `n_slots` positions are read).
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
        let pieces = self.pieces(&self.language.templates.user, &soft, |name| match name {
            "USER" if self.user_id_text => Some(Fill::Text(&number)),
            "USER" => Some(Fill::Soft(1)),
            "ITEMS" => (!shown.is_empty()).then_some(Fill::Soft(shown.len())),
            "PROFILE" => profile.map(Fill::Text),
            _ => prediction.map(Fill::Text),
        })?;
        Ok(place(pieces, slots, self.placement, n_slots))
    }

    /// Renders what follows the static prefix; soft tokens are taken in order.
    fn pieces<'a>(
        &self,
        template: &str,
        soft: &[u32],
        fill: impl Fn(&str) -> Option<Fill<'a>>,
    ) -> Result<Vec<Piece>> {
        let rest = &template[Templates::static_prefix(template).len()..];
        let mut soft = soft.iter();
        let mut pieces = Vec::new();
        for span in Templates::render(rest, fill) {
            match span {
                Span::Text(text) => {
                    pieces.push(Piece::Tokens(self.language.tokenizer.encode(&text, false)?));
                }
                Span::Soft(n) => pieces.extend(soft.by_ref().take(n).map(|&i| Piece::Soft(i))),
            }
        }
        Ok(pieces)
    }
}

fn place(mut pieces: Vec<Piece>, slots: &[u32], placement: SlotPlacement, n_slots: usize) -> Row {
    let slot_pieces = slots.iter().map(|&s| Piece::Soft(s));
    match placement {
        // A causal model cannot look ahead, so what would follow need not run.
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

/// A prompt whose slots are among its pieces; what would follow the last need not run.
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

/// The first `max_tokens` tokens of a text, as text.
fn cut(language: &LanguageModel, text: &str, max_tokens: usize) -> Result<String> {
    let ids = language.tokenizer.encode(text, false)?;
    if ids.len() <= max_tokens {
        return Ok(text.to_owned());
    }
    Ok(language.tokenizer.decode(&ids[..max_tokens])?.trim_end_matches('\u{fffd}').to_owned())
}
