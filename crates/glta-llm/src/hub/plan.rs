//! Which files of a repository make a checkpoint.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use crate::checkpoint::{INDEX, read_index, sole_weights};
use crate::error::Result;
use crate::tokenizer::is_companion;

const CONFIG: &str = "config.json";

/// The names to fetch out of `names`, small files before weights, so that a
/// snapshot with its weights is whole; or what the repository lacks. `index` is
/// the shards' index where there is one.
pub(super) fn files(
    names: &[String],
    index: Option<&Path>,
) -> Result<std::result::Result<Vec<String>, String>> {
    let weights: BTreeSet<String> = match index {
        Some(index) => read_index(index)?.into_values().collect(),
        None => match sole_weights(names.iter().map(String::as_str)) {
            Ok(name) => BTreeSet::from([name.to_owned()]),
            Err(message) => return Ok(Err(message)),
        },
    };
    let needed = weights.iter().map(String::as_str).chain([CONFIG]);
    let missing: Vec<&str> = needed.filter(|n| !names.iter().any(|name| name == n)).collect();
    if !missing.is_empty() {
        return Ok(Err(format!("{} missing", missing.join(", "))));
    }
    let small = names.iter().filter(|name| {
        is_plain(name)
            && !weights.contains(*name)
            && (is_companion(name) || [CONFIG, "quantize_config.json", INDEX].contains(&&***name))
    });
    Ok(Ok(small.cloned().chain(weights.iter().cloned()).collect()))
}

/// Whether a name stays in its folder, on any system.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
        && !name.contains(['/', '\\', ':'])
}
