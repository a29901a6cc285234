//! Hashes and samples that identify the data and the text encoder of a record.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use glta_core::{Silent, TextEncoder};
use glta_data::{Dataset, TextConfig};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// The sentence whose vector identifies a text encoder.
const SENTENCE: &str = "A green canvas tent for two people, with poles and a bag.";
/// Number of columns of the identifying vector that are stored.
const COLUMNS: usize = 16;
/// Maximum difference between two vectors of the same encoder, relative to their largest value. The
/// vectors can differ, because processors round differently.
const TOLERANCE: f32 = 1e-3;

/// Identity of the sentence encoder of an experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EncoderRecord {
    /// Name of the encoder.
    pub name: String,
    /// The first 16 columns of the encoder's vector of a fixed sentence.
    pub sample: Vec<f32>,
}

impl EncoderRecord {
    pub(crate) fn new(encoder: &dyn TextEncoder) -> Result<Self> {
        let name = encoder.name().to_owned();
        let vectors = encoder.encode(&[SENTENCE.to_owned()], &mut Silent);
        let vectors = vectors.map_err(|e| Error::Align(glta_align::Error::Encoder(e)))?;
        let sample = vectors.iter().take(COLUMNS).copied().collect();
        Ok(Self { name, sample })
    }

    /// Returns whether both records identify the same encoder.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let largest = self.sample.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= TOLERANCE * largest;
        self.name == other.name
            && self.sample.len() == other.sample.len()
            && self.sample.iter().zip(&other.sample).all(near)
    }
}

/// Returns the SHA-256, in hexadecimal, of the raw ids, the item texts, and all interactions with
/// their ratings and times.
pub(crate) fn data_hash(dataset: &Dataset, texts: &TextConfig) -> Result<String> {
    let mut hash = Sha256::new();
    let mut text = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    dataset.users().iter().for_each(|id| text(id));
    dataset.items().iter().for_each(|item| text(&item.raw_id));
    dataset.texts(texts)?.iter().for_each(|words| text(words));
    for user in 0..dataset.n_users() as u32 {
        let items = dataset.interactions().items(user);
        hash.update((items.len() as u64).to_le_bytes());
        items.iter().for_each(|item| hash.update(item.to_le_bytes()));
    }
    for rating in dataset.ratings().unwrap_or_default() {
        hash.update(rating.to_le_bytes());
    }
    for time in dataset.timestamps().unwrap_or_default() {
        hash.update(time.to_le_bytes());
    }
    Ok(hexadecimal(hash))
}

/// Returns the SHA-256 of each file of text vectors, in hexadecimal.
pub(crate) fn file_hashes(files: &[PathBuf]) -> Result<BTreeMap<PathBuf, String>> {
    files.iter().map(|path| Ok((path.clone(), file_hash(path)?))).collect()
}

fn file_hash(path: &Path) -> Result<String> {
    let mut file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer).map_err(|e| Error::io(path, e))? {
            0 => return Ok(hexadecimal(hash)),
            n => hash.update(&buffer[..n]),
        }
    }
}

fn hexadecimal(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoder_is_identified_by_name_and_vector() {
        let record = |name: &str, sample: &[f32]| EncoderRecord {
            name: name.into(),
            sample: sample.to_vec(),
        };
        let one = record("a", &[0.5, -1.0]);
        assert!(one.is(&record("a", &[0.5, -1.0])));
        assert!(one.is(&record("a", &[0.500_01, -1.0])));
        assert!(!one.is(&record("b", &[0.5, -1.0])));
        assert!(!one.is(&record("a", &[0.51, -1.0])));
        assert!(!one.is(&record("a", &[0.5])));
    }

    #[test]
    fn every_part_of_the_data_changes_the_hash() {
        use glta_data::{Interaction, Item};
        let hash = |pairs: &[Interaction<'_>], title: &str| {
            let item = |raw_id: &str| Item {
                raw_id: raw_id.into(),
                title: title.into(),
                ..Item::default()
            };
            let items = vec![item("x"), item("y")];
            let data = Dataset::from_interactions("d", pairs.iter().copied(), items).unwrap();
            data_hash(&data, &TextConfig::default()).unwrap()
        };
        let (a, b) = (Interaction::new("u", "x"), Interaction::new("v", "y"));
        let rated = |of, rating| Interaction { rating: Some(rating), ..of };
        let timed = |of, time| Interaction { timestamp: Some(time), ..of };
        let seen = [
            hash(&[a, b], "tea"),
            hash(&[a, b], "tea pot"),
            hash(&[a, Interaction::new("u", "y"), b], "tea"),
            hash(&[a, Interaction::new("w", "y")], "tea"),
            hash(&[rated(a, 1.0), rated(b, 1.0)], "tea"),
            hash(&[rated(a, 1.0), rated(b, 2.0)], "tea"),
            hash(&[timed(a, 1), timed(b, 1)], "tea"),
            hash(&[timed(a, 1), timed(b, 2)], "tea"),
        ];
        for (n, one) in seen.iter().enumerate() {
            assert!(!seen[..n].contains(one), "{n}");
        }
        assert_eq!(hash(&[a, b], "tea"), seen[0]);
    }
}
