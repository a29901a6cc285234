//! Runs the language model, and stores its results in files of the seed's folder.

use std::ops::Range;

use glta_align::LanguageModel;
use glta_core::write_whole;
use ndarray::Array2;
use sha2::{Digest, Sha256};

use super::prompts::Prompts;
use crate::seed::Seed;
use crate::{Error, Result};

/// Number of results per file. An interrupted run loses at most the results of one file.
const CHUNK: usize = 128;

/// Name of the folder for the results, within the folder of the seed.
const FOLDER: &str = "llm-path";

/// A language model with pretrained or random weights.
pub(crate) struct Reader {
    pub(crate) model: LanguageModel,
    /// The checkpoint's hash, the number of layers, and the seed of random weights.
    identity: String,
}

impl Reader {
    pub(crate) fn new(seed: &Seed<'_>, random: bool) -> Result<Self> {
        let language = seed.language()?;
        let layers = language.llama.config().num_hidden_layers;
        let hash = language.checkpoint_hash()?;
        if random {
            let model = language.randomized(seed.number())?;
            return Ok(Self {
                model,
                identity: format!("{hash} {layers} random {}", seed.number()),
            });
        }
        Ok(Self { model: language.clone(), identity: format!("{hash} {layers}") })
    }

    /// Returns the [`LanguageModel::prompt_states`] of prompts, `(prompts, 2 · hidden)`.
    pub(crate) fn states(
        &self,
        seed: &mut Seed<'_>,
        work: &str,
        prompts: &[Vec<u32>],
        batch: usize,
    ) -> Result<Array2<f32>> {
        let width = 2 * self.model.llama.config().hidden_size;
        let key = |range: Range<usize>| self.key("states", prompts[range].iter().map(|p| &p[..]));
        let values = in_files(seed, work, prompts.len(), key, |range| {
            let mut values = Vec::with_capacity(range.len() * width);
            for batch in prompts[range].chunks(batch) {
                values.extend(self.model.prompt_states(batch)?);
            }
            Ok(values)
        })?;
        let path = seed.folder();
        Array2::from_shape_vec((prompts.len(), width), values).map_err(|e| Error::file(path, e))
    }

    /// Returns, for each prompt, the mean log-probability per token of the titles of some items.
    pub(crate) fn likelihoods(
        &self,
        seed: &mut Seed<'_>,
        work: &str,
        jobs: &[(Vec<u32>, Vec<u32>)],
        prompts: &Prompts<'_>,
    ) -> Result<Vec<Vec<f32>>> {
        let titles = |items: &[u32]| -> Vec<Vec<u32>> {
            items.iter().map(|&item| prompts.title(item).to_vec()).collect()
        };
        let key = |range: Range<usize>| {
            let texts: Vec<Vec<u32>> = jobs[range]
                .iter()
                .flat_map(|(prompt, items)| [vec![prompt.clone()], titles(items)].concat())
                .collect();
            self.key("likelihoods", texts.iter().map(|ids| &ids[..]))
        };
        let mut values = in_files(seed, work, jobs.len(), key, |range| {
            let mut values = Vec::new();
            for (prompt, items) in &jobs[range] {
                values.extend(self.model.log_likelihoods(prompt, &titles(items))?);
            }
            Ok(values)
        })?
        .into_iter();
        Ok(jobs.iter().map(|(_, items)| values.by_ref().take(items.len()).collect()).collect())
    }

    fn key<'i>(&self, kind: &str, texts: impl Iterator<Item = &'i [u32]>) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{kind} {}", self.identity));
        for ids in texts {
            hash.update((ids.len() as u64).to_le_bytes());
            ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
        }
        let digest = hash.finalize();
        let digits: String = digest[..12].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{kind}-{digits}.f32")
    }
}

/// Returns `n` results. Reads the results that are in files, and computes and stores the remaining
/// ones.
fn in_files(
    seed: &mut Seed<'_>,
    work: &str,
    n: usize,
    key: impl Fn(Range<usize>) -> String,
    mut compute: impl FnMut(Range<usize>) -> Result<Vec<f32>>,
) -> Result<Vec<f32>> {
    let folder = seed.folder().join(FOLDER);
    if seed.comm().is_root() {
        std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
    }
    let mut all = Vec::new();
    for start in (0..n).step_by(CHUNK) {
        let range = start..(start + CHUNK).min(n);
        let path = folder.join(key(range.clone()));
        if seed.has(&path)? {
            let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
            let (values, rest) = bytes.as_chunks::<4>();
            if !rest.is_empty() {
                return Err(Error::file(&path, "is not a list of f32; delete it"));
            }
            all.extend(values.iter().map(|bytes| f32::from_le_bytes(*bytes)));
        } else {
            let values = compute(range.clone())?;
            // No rank may look for the file while rank 0 writes it.
            seed.comm().barrier()?;
            if seed.comm().is_root() {
                let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                write_whole(&path, &bytes).map_err(|e| Error::io(&path, e))?;
            }
            all.extend(values);
        }
        seed.advance(work, range.end as u64, n as u64, "")?;
    }
    Ok(all)
}
