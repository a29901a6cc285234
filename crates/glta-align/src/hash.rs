//! Computes the hash that identifies a checkpoint.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::files::read;
use crate::{Error, Result};

/// Number of bytes that a thread reads and hashes at a time.
const CHUNK: u64 = 8 << 20;
/// Names of the settings files that affect the answers of a model.
const SETTINGS: [&str; 5] = [
    "config.json",
    "generation_config.json",
    "quantize_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
];
const WEIGHTS: &str = "model.safetensors";

/// Returns a hash of the weights, configuration and tokenizer in `dir`, in hexadecimal. Chunks are
/// read and hashed in parallel, and the result is a hash of their hashes.
pub(crate) fn hash(dir: &Path) -> Result<String> {
    let mut files: Vec<(&str, PathBuf)> = SETTINGS
        .into_iter()
        .map(|name| (name, dir.join(name)))
        .filter(|(_, path)| path.exists())
        .collect();
    files.extend(weights(dir)?.into_iter().map(|path| (WEIGHTS, path)));
    let sizes = files
        .iter()
        .map(|(_, path)| Ok(path.metadata().map_err(|e| Error::io(path, e))?.len()))
        .collect::<Result<Vec<u64>>>()?;
    let chunks: Vec<(usize, u64)> = sizes
        .iter()
        .enumerate()
        .flat_map(|(file, &size)| (0..size).step_by(CHUNK as usize).map(move |at| (file, at)))
        .collect();
    let digests = chunks
        .par_iter()
        .map(|&(file, start)| {
            let path = &files[file].1;
            chunk(path, start).map_err(|e| Error::io(path, e))
        })
        .collect::<Result<Vec<[u8; 32]>>>()?;
    let mut whole = Sha256::new();
    for (n, ((role, _), size)) in files.iter().zip(sizes).enumerate() {
        // The name of a weight file is not hashed, because it does not affect answers.
        whole.update(role.as_bytes());
        whole.update([0]);
        whole.update(size.to_le_bytes());
        let own = chunks.iter().zip(&digests).filter(|((file, _), _)| *file == n);
        own.for_each(|(_, digest)| whole.update(digest));
    }
    Ok(whole.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn chunk(path: &Path, start: u64) -> std::io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(CHUNK).read_to_end(&mut bytes)?;
    Ok(Sha256::digest(&bytes).into())
}

/// Returns the weight files of a model, sorted by name. They are the shards that the index lists.
/// Without an index, they are the file `model.safetensors` or, if it does not exist, all weight
/// files.
fn weights(dir: &Path) -> Result<Vec<PathBuf>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let index = dir.join("model.safetensors.index.json");
    if index.exists() {
        let map: Index =
            serde_json::from_slice(&read(&index)?).map_err(|e| Error::file(&index, e))?;
        let shards: BTreeSet<String> = map.weight_map.into_values().collect();
        return Ok(shards.iter().map(|shard| dir.join(shard)).collect());
    }
    let usual = dir.join(WEIGHTS);
    if usual.exists() {
        return Ok(vec![usual]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| Error::io(dir, e))? {
        let path = entry.map_err(|e| Error::io(dir, e))?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            found.push(path);
        }
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_relevant_file_changes_the_hash() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        };
        // The file has three chunks, the last of which is short.
        let mut weights: Vec<u8> = (0..2 * CHUNK + 5).map(|n| (n % 251) as u8).collect();
        write("model.safetensors", &weights);
        write("config.json", b"{}");
        write("tokenizer.json", b"{\"a\":1}");
        let mut seen = vec![hash(folder.path()).unwrap()];
        assert_eq!(seen[0].len(), 64);
        write("README.md", b"nothing to do with it");
        write("other.safetensors", b"not loaded");
        assert_eq!(hash(folder.path()).unwrap(), seen[0]);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        assert_eq!(pool.install(|| hash(folder.path())).unwrap(), seen[0]);
        let mut changed = |name: &str, bytes: &[u8]| {
            write(name, bytes);
            let hash = hash(folder.path()).unwrap();
            assert!(!seen.contains(&hash), "{name}");
            seen.push(hash);
        };
        changed("tokenizer.json", b"{\"a\":2}");
        changed("config.json", b"{ }");
        changed("generation_config.json", b"{}");
        for at in [0, CHUNK as usize, weights.len() - 1] {
            weights[at] ^= 1;
            changed("model.safetensors", &weights);
        }
        weights.push(0);
        changed("model.safetensors", &weights);
        // The same bytes under another name are the same weights.
        let names = ["model.safetensors", "gptq-4bit.safetensors"];
        std::fs::remove_file(folder.path().join("other.safetensors")).unwrap();
        let before = hash(folder.path()).unwrap();
        std::fs::rename(folder.path().join(names[0]), folder.path().join(names[1])).unwrap();
        assert_eq!(hash(folder.path()).unwrap(), before);
        // With an index, only its shards are weights.
        write("b.safetensors", b"two");
        write("model.safetensors.index.json", br#"{"weight_map": {"x": "b.safetensors"}}"#);
        let shard = hash(folder.path()).unwrap();
        write("b.safetensors", b"six");
        assert_ne!(hash(folder.path()).unwrap(), shard);
        write("model.safetensors.index.json", br#"{"weight_map": {"x": "c.safetensors"}}"#);
        let message = hash(folder.path()).unwrap_err().to_string();
        assert!(message.contains("c.safetensors"), "{message}");
    }
}
