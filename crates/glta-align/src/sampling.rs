//! Draws the items that a prompt shows and those that its slots must name.

use glta_core::{pick, stream};
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::config::{TargetRule, TextsConfig, UserStageConfig};

/// The data of one user's prompt, in training or when lists are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserExample {
    /// Dense user id, or `None` for a user outside the training data.
    pub(crate) user: Option<u32>,
    /// Items from which the user token is computed, in ascending order.
    pub(crate) context: Vec<u32>,
    /// Items of the context whose tokens the prompt shows.
    pub(crate) shown: Vec<u32>,
    /// Items that the slots must name.
    pub(crate) targets: Vec<u32>,
    /// Whether the prompt contains the user's texts.
    pub(crate) texts: bool,
    /// Items whose tokens are added to the inputs of the second and later slots, in order. The
    /// inputs of the remaining slots get no item token.
    pub(crate) fed: Vec<u32>,
}

/// The data of one prompt of item-text alignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ItemExample {
    /// Items of the prompt, in the order of their tokens.
    pub(crate) items: Vec<u32>,
    /// Items of the prompt, in the order of their descriptions.
    pub(crate) descriptions: Vec<u32>,
}

/// Draws the training items from whose descriptions a user's texts are written, in ascending order.
/// They are the same in every step, so that they can be excluded from the targets.
pub(crate) fn text_items(train: &[u32], user: u32, config: &TextsConfig, seed: u64) -> Vec<u32> {
    if !config.profile && !config.prediction {
        return Vec::new();
    }
    let most = (train.len() as f64 * config.max_share) as usize;
    let mut rng = stream(seed, "text items", &[u64::from(user)]);
    pick(train, most.min(config.max_items), &mut rng)
}

/// Splits a user's training items into context and targets. Returns `None` if one of them would be
/// empty.
///
/// With [`TargetRule::Hidden`], context and targets are disjoint, and the items of `text_items`
/// (ascending) are always context.
pub(crate) fn user_example(
    user: u32,
    train: &[u32],
    text_items: &[u32],
    history: usize,
    stage: &UserStageConfig,
    text_dropout: f64,
    rng: &mut ChaCha8Rng,
) -> Option<UserExample> {
    let (context, targets) = match stage.targets {
        TargetRule::All => (train.to_vec(), train.to_vec()),
        TargetRule::Hidden => {
            let free: Vec<u32> =
                train.iter().copied().filter(|i| text_items.binary_search(i).is_err()).collect();
            let share = rng.random_range(stage.hide_min..=stage.hide_max);
            let most = free.len().min(train.len().checked_sub(1)?);
            if most == 0 {
                return None;
            }
            let hidden = ((train.len() as f64 * share).round() as usize).clamp(1, most);
            let targets = pick(&free, hidden, rng);
            let context =
                train.iter().copied().filter(|i| targets.binary_search(i).is_err()).collect();
            (context, targets)
        }
    };
    if context.is_empty() || targets.is_empty() {
        return None;
    }
    let mut shown = pick(&context, history, rng);
    shown.shuffle(rng);
    let texts = rng.random::<f64>() >= text_dropout;
    Some(UserExample { user: Some(user), context, shown, targets, texts, fed: Vec::new() })
}

/// Returns the example of a user for whom a list is made. The user token is computed from all
/// context items, and a fixed random part of them is shown.
pub(crate) fn inference_example(
    user: Option<u32>,
    context: &[u32],
    history: usize,
    seed: u64,
) -> UserExample {
    let mut rng = stream(seed, "shown items", &[user.map_or(u64::MAX, u64::from)]);
    let mut shown = pick(context, history, &mut rng);
    shown.shuffle(&mut rng);
    let context = context.to_vec();
    UserExample { user, context, shown, targets: Vec::new(), texts: true, fed: Vec::new() }
}

/// Draws prompts of `per_prompt` items, with shuffled descriptions. The prompts together contain
/// every item of `items` once. If the last prompt is not full, it is filled with further random
/// items.
pub(crate) fn item_examples(
    items: &[u32],
    per_prompt: usize,
    rng: &mut ChaCha8Rng,
) -> Vec<ItemExample> {
    if items.len() < per_prompt {
        return Vec::new();
    }
    let mut order = items.to_vec();
    order.shuffle(rng);
    order
        .chunks(per_prompt)
        .map(|chunk| {
            let mut shown = chunk.to_vec();
            while shown.len() < per_prompt {
                let item = items[rng.random_range(0..items.len())];
                if !shown.contains(&item) {
                    shown.push(item);
                }
            }
            let mut descriptions = shown.clone();
            descriptions.shuffle(rng);
            ItemExample { items: shown, descriptions }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn hidden_targets_are_never_in_the_prompt(
            train in prop::collection::btree_set(0u32..200, 0..40),
            history in 0usize..10,
            max_share in 0.0f64..=1.0,
            (low, high) in (0.0f64..=1.0, 0.0f64..=1.0),
            seed in 0u64..1000,
        ) {
            let train: Vec<u32> = train.into_iter().collect();
            let texts = TextsConfig { max_share, ..TextsConfig::default() };
            let stage = UserStageConfig {
                hide_min: low.min(high),
                hide_max: low.max(high),
                ..UserStageConfig::default()
            };
            let read = text_items(&train, 7, &texts, seed);
            prop_assert!(read.len() <= texts.max_items);
            prop_assert!(read.iter().all(|i| train.contains(i)));
            let mut random = stream(seed, "test", &[]);
            let Some(example) =
                user_example(7, &train, &read, history, &stage, 0.1, &mut random)
            else {
                prop_assert!(train.len() < 2 || read.len() == train.len());
                return Ok(());
            };
            prop_assert_eq!(example.context.len() + example.targets.len(), train.len());
            for target in &example.targets {
                prop_assert!(train.contains(target));
                prop_assert!(!example.context.contains(target));
                prop_assert!(!example.shown.contains(target));
                prop_assert!(!read.contains(target));
            }
            prop_assert!(example.shown.iter().all(|i| example.context.contains(i)));
            prop_assert_eq!(example.shown.len(), history.min(example.context.len()));
        }

        #[test]
        fn item_prompts_cover_every_item(n in 0u32..60, per in 2usize..7, seed in 0u64..100) {
            let items: Vec<u32> = (0..n).collect();
            let examples = item_examples(&items, per, &mut stream(seed, "test", &[]));
            if items.len() < per {
                prop_assert!(examples.is_empty());
                return Ok(());
            }
            let mut seen: Vec<u32> = examples.iter().flat_map(|e| e.items.clone()).collect();
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!(seen, items);
            for example in examples {
                prop_assert_eq!(example.items.len(), per);
                let mut a = example.items.clone();
                let mut b = example.descriptions.clone();
                a.sort_unstable();
                b.sort_unstable();
                a.dedup();
                prop_assert_eq!(a.len(), per);
                prop_assert_eq!(a, b);
            }
        }
    }

    #[test]
    fn the_literal_reading_shows_and_targets_everything() {
        let stage = UserStageConfig { targets: TargetRule::All, ..UserStageConfig::default() };
        let mut random = stream(1, "test", &[]);
        let example = user_example(0, &[3, 5, 9], &[3], 2, &stage, 0.0, &mut random).unwrap();
        assert_eq!(example.context, [3, 5, 9]);
        assert_eq!(example.targets, [3, 5, 9]);
        assert!(example.texts);
    }
}
