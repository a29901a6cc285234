use glta_metrics::Ranked;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How the logits of a user's slots become one ranked list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Decoder {
    /// Slot `t` names the best item not yet taken: the paper's GLTA. Slots take
    /// turns until the list is full.
    Parallel,
    /// The best items of the first slot (the paper's FL).
    FirstLogit,
    /// The best items by mean log-probability over the slots.
    MeanSlots,
}

/// The best `k` items of one user, best first, with their log-probability (in
/// the slot that named them, or its mean over the slots).
///
/// `slots` holds one row of `items` logits per slot; items of `excluded` are
/// never named. Ties go to the lower id. The list is shorter than `k` only when
/// no item is left.
///
/// # Errors
/// A logit that is not a number.
pub fn decode(
    slots: &[impl AsRef<[f32]>],
    excluded: &[u32],
    k: usize,
    decoder: Decoder,
) -> Result<Vec<Ranked>> {
    for (slot, row) in slots.iter().enumerate() {
        if let Some(item) = row.as_ref().iter().position(|l| l.is_nan()) {
            return Err(Error::NotANumber { slot, item });
        }
    }
    match decoder {
        Decoder::FirstLogit => Ok(slots
            .first()
            .map(|row| best(log_softmax(row.as_ref()), excluded, k))
            .unwrap_or_default()),
        Decoder::MeanSlots => {
            let mut mean: Vec<f32> = Vec::new();
            for row in slots {
                let row = log_softmax(row.as_ref());
                mean.resize(row.len(), 0.0);
                for (sum, l) in mean.iter_mut().zip(row) {
                    *sum += l / slots.len() as f32;
                }
            }
            Ok(best(mean, excluded, k))
        }
        Decoder::Parallel => {
            // A slot can lose at most k - 1 items to the others.
            let lists: Vec<Vec<Ranked>> =
                slots.iter().map(|row| best(log_softmax(row.as_ref()), excluded, k)).collect();
            let mut next = vec![0; lists.len()];
            let mut taken: Vec<Ranked> = Vec::with_capacity(k);
            while taken.len() < k {
                let before = taken.len();
                for (list, next) in lists.iter().zip(&mut next) {
                    while *next < list.len() && taken.iter().any(|t| t.item == list[*next].item) {
                        *next += 1;
                    }
                    if *next < list.len() && taken.len() < k {
                        taken.push(list[*next]);
                    }
                }
                if taken.len() == before {
                    break;
                }
            }
            Ok(taken)
        }
    }
}

fn log_softmax(row: &[f32]) -> Vec<f32> {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|l| f64::from(l - max).exp()).sum();
    let shift = max + sum.ln() as f32;
    row.iter().map(|l| l - shift).collect()
}

fn best(mut scores: Vec<f32>, excluded: &[u32], k: usize) -> Vec<Ranked> {
    for &item in excluded {
        if let Some(score) = scores.get_mut(item as usize) {
            *score = f32::NEG_INFINITY;
        }
    }
    // Not-a-numbers were refused at the door.
    glta_metrics::best(&scores, k).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn items(slots: &[Vec<f32>], excluded: &[u32], k: usize, decoder: Decoder) -> Vec<u32> {
        decode(slots, excluded, k, decoder).unwrap().iter().map(|r| r.item).collect()
    }

    #[test]
    fn worked_by_hand() {
        let slots = vec![vec![5.0, 4.0, 3.0, 0.0], vec![5.0, 1.0, 2.0, 4.0]];
        assert_eq!(items(&slots, &[], 4, Decoder::Parallel), [0, 3, 1, 2]);
        assert_eq!(items(&slots, &[], 2, Decoder::FirstLogit), [0, 1]);
        assert_eq!(items(&slots, &[0], 3, Decoder::Parallel), [1, 3, 2]);
        let mean = items(&slots, &[], 4, Decoder::MeanSlots);
        assert_eq!(mean, [0, 1, 2, 3]);
    }

    #[test]
    fn scores_are_log_probabilities() {
        let ranked = decode(&[vec![1.0f32, 1.0]], &[], 2, Decoder::FirstLogit).unwrap();
        assert_eq!(ranked[0].item, 0);
        assert!((ranked[0].score - 0.5f32.ln()).abs() < 1e-6);
    }

    #[test]
    fn a_nan_is_an_error() {
        let bad = decode(&[vec![0.0, f32::NAN]], &[], 1, Decoder::Parallel).unwrap_err();
        assert!(matches!(bad, Error::NotANumber { slot: 0, item: 1 }));
    }

    proptest! {
        #[test]
        fn lists_are_full_distinct_and_allowed(
            slots in prop::collection::vec(prop::collection::vec(-5f32..5.0, 12), 1..6),
            excluded in prop::collection::vec(0u32..12, 0..12),
            k in 0usize..15,
        ) {
            let free = (0..12).filter(|i| !excluded.contains(i)).count();
            for decoder in [Decoder::Parallel, Decoder::FirstLogit, Decoder::MeanSlots] {
                let got = items(&slots, &excluded, k, decoder);
                prop_assert_eq!(got.len(), k.min(free));
                let mut distinct = got.clone();
                distinct.sort_unstable();
                distinct.dedup();
                prop_assert_eq!(distinct.len(), got.len());
                prop_assert!(got.iter().all(|i| !excluded.contains(i)));
            }
        }
    }
}
