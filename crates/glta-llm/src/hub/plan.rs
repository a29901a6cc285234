//! Selects the files of a repository that form a checkpoint.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use crate::checkpoint::{Weights, read_index, weights};
use crate::error::Result;
use crate::tokenizer::is_companion;

const CONFIG: &str = "config.json";

/// Returns the name of the index file of the shards, `None` if there is a single weight file, or an
/// error message.
pub(super) fn index(names: &[String]) -> std::result::Result<Option<&str>, String> {
    Ok(match weights(names.iter().map(String::as_str))? {
        Weights::Shards(index) => Some(index),
        Weights::File(_) => None,
    })
}

/// Selects the files to download out of `names`, or returns what is missing. Small files come
/// before weights, so that a snapshot with weights is complete. An index of shards is read from
/// `snapshot`.
pub(super) fn files(
    names: &[String],
    snapshot: &Path,
) -> Result<std::result::Result<Vec<String>, String>> {
    let found = match weights(names.iter().map(String::as_str)) {
        Ok(found) => found,
        Err(message) => return Ok(Err(message)),
    };
    let (index, weights): (Option<&str>, BTreeSet<String>) = match found {
        Weights::Shards(index) => {
            (Some(index), read_index(&snapshot.join(index))?.into_values().collect())
        }
        Weights::File(name) => (None, BTreeSet::from([name.to_owned()])),
    };
    let needed = weights.iter().map(String::as_str).chain([CONFIG]);
    let missing: Vec<&str> = needed.filter(|n| !names.iter().any(|name| name == n)).collect();
    if !missing.is_empty() {
        return Ok(Err(format!("{} missing", missing.join(", "))));
    }
    // Few repositories have the reference tensors of `verify`.
    let others = [CONFIG, "quantize_config.json", "reference.safetensors"];
    let small = names.iter().filter(|name| {
        is_plain(name)
            && !weights.contains(*name)
            && (is_companion(name) || others.contains(&&***name) || index == Some(&***name))
    });
    Ok(Ok(small.cloned().chain(weights.iter().cloned()).collect()))
}

/// Returns whether a file name is a plain name, which cannot lead out of its folder on any
/// operating system.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
        && !name.contains(['/', '\\', ':'])
}
