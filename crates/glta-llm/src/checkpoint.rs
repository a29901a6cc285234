use std::borrow::Cow;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Component, Path, PathBuf};

use memmap2::{Mmap, UncheckedAdvice};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::damage;
use crate::error::{Error, Result};
use crate::json::read_object;

/// The dtypes that dense tensors can have.
pub(crate) const FLOATS: &[Dtype] = &[Dtype::F16, Dtype::BF16, Dtype::F32];

/// Name of the file that maps each tensor to its shard. AutoGPTQ uses a different name before
/// `.index.json`.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
const INDEX_END: &str = ".safetensors.index.json";
const WEIGHTS: &str = "model.safetensors";

/// The tensors of a checkpoint in one or several memory-mapped safetensors files.
pub(crate) struct Checkpoint {
    files: Vec<(PathBuf, Mmap)>,
    tensors: BTreeMap<String, Entry>,
    /// Whether the warning about a wrong format of the zero points has been logged.
    pub(crate) relabelled: Cell<bool>,
}

struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    start: usize,
    end: usize,
    used: Cell<bool>,
}

/// A tensor in a mapped file.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) path: &'a Path,
    pub(crate) name: &'a str,
    pub(crate) dtype: Dtype,
    pub(crate) shape: &'a [usize],
    pub(crate) bytes: &'a [u8],
}

impl Checkpoint {
    /// Maps the files that [`weights`] finds in the folder.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(Error::io(dir))? {
            names.extend(entry.map_err(Error::io(dir))?.file_name().into_string());
        }
        let (files, tensors) = (Vec::new(), BTreeMap::new());
        let mut checkpoint = Self { files, tensors, relabelled: Cell::new(false) };
        match weights(names.iter().map(String::as_str)) {
            Ok(Weights::Shards(index)) => checkpoint.open_shards(dir, &dir.join(index))?,
            Ok(Weights::File(name)) => {
                let index = dir.join(INDEX);
                let indexed = index.exists();
                if indexed && read_index(&index)?.values().all(|shard| shard == name) {
                    checkpoint.open_shards(dir, &index)?;
                } else {
                    if indexed {
                        let index = index.display();
                        tracing::warn!("{index} names other files; {name} is read instead");
                    }
                    checkpoint.add(dir.join(name))?;
                }
            }
            Err(problem) => return Err(Error::Input(format!("{}: {problem}", dir.display()))),
        }
        Ok(checkpoint)
    }

    fn open_shards(&mut self, dir: &Path, index: &Path) -> Result<()> {
        let map = read_index(index)?;
        let mut shards: HashMap<&str, usize> = HashMap::new();
        for (tensor, shard) in &map {
            let file = match shards.get(shard.as_str()) {
                Some(&file) => file,
                None => {
                    let file = self.files.len();
                    let path = dir.join(shard);
                    if !path.exists() {
                        let problem = format!(
                            "names the shard {shard}, which is not in the folder; download it"
                        );
                        return Err(Error::json(index, problem));
                    }
                    self.add(path)?;
                    shards.insert(shard, file);
                    file
                }
            };
            if self.tensors.get(tensor).is_none_or(|e| e.file != file) {
                return Err(Error::MissingTensor { path: dir.join(shard), tensor: tensor.clone() });
            }
        }
        if let Some(stray) = self.tensors.keys().find(|name| !map.contains_key(*name)) {
            return Err(Error::UnexpectedTensor {
                path: self.files[self.tensors[stray].file].0.clone(),
                tensor: stray.clone(),
                problem: "the index does not name it".into(),
            });
        }
        Ok(())
    }

    fn add(&mut self, path: PathBuf) -> Result<()> {
        let file = File::open(&path).map_err(Error::io(&path))?;
        // SAFETY: the file must not be truncated while it is mapped. `Llama::load` documents this.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io(&path))?;
        let invalid = |problem: String| Error::Safetensors { path: path.clone(), problem };
        let (header, metadata) = SafeTensors::read_metadata(&map)
            .map_err(|e| invalid(damage::safetensors(&map).unwrap_or_else(|| e.to_string())))?;
        for (name, info) in metadata.tensors() {
            let start = 8 + header + info.data_offsets.0;
            let end = 8 + header + info.data_offsets.1;
            if start > end || end > map.len() {
                return Err(invalid(format!("tensor `{name}` lies outside the file")));
            }
            let entry = Entry {
                file: self.files.len(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                start,
                end,
                used: Cell::new(false),
            };
            if let Some(other) = self.tensors.insert(name.clone(), entry) {
                return Err(Error::UnexpectedTensor {
                    path,
                    tensor: name,
                    problem: format!("also in {}", self.files[other.file].0.display()),
                });
            }
        }
        self.files.push((path, map));
        Ok(())
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Iterates over the names of all tensors in ascending order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Returns the tensor `name` and marks it as used. Returns an error if there is no such tensor.
    pub(crate) fn get(&self, name: &str) -> Result<View<'_>> {
        let Some((name, entry)) = self.tensors.get_key_value(name) else {
            return Err(Error::MissingTensor { path: self.path(), tensor: name.to_string() });
        };
        entry.used.set(true);
        Ok(self.view(name, entry))
    }

    /// Returns the path of the single file, or of the folder if there are several files.
    pub(crate) fn path(&self) -> PathBuf {
        match &self.files[..] {
            [(only, _)] => only.clone(),
            files => files
                .first()
                .and_then(|(path, _)| path.parent())
                .map_or_else(PathBuf::new, Path::to_path_buf),
        }
    }

    /// Returns the shape of a tensor, or `None` if there is no such tensor. Does not mark the
    /// tensor as used.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|entry| &*entry.shape)
    }

    fn view<'a>(&'a self, name: &'a str, entry: &'a Entry) -> View<'a> {
        let (path, map) = &self.files[entry.file];
        View {
            path,
            name,
            dtype: entry.dtype,
            shape: &entry.shape,
            bytes: &map[entry.start..entry.end],
        }
    }

    /// Tells the operating system that the tensor's pages are not needed again, so that a file and
    /// its repacked copy are not in memory together.
    pub(crate) fn release(&self, name: &str) {
        let Some(entry) = self.tensors.get(name) else {
            return;
        };
        // Release only whole pages, because others may contain parts of neighbouring tensors.
        const PAGE: usize = 1 << 16;
        let start = entry.start.next_multiple_of(PAGE);
        let end = entry.end / PAGE * PAGE;
        if start < end {
            // SAFETY: the operating system reads the pages of a clean file mapping from the file
            // again.
            let _ = unsafe {
                self.files[entry.file].1.unchecked_advise_range(
                    UncheckedAdvice::DontNeed,
                    start,
                    end - start,
                )
            };
        }
    }

    /// Returns the first tensor that was not used and that `allowed` does not accept.
    pub(crate) fn first_unused(&self, allowed: impl Fn(&str) -> bool) -> Option<View<'_>> {
        self.tensors
            .iter()
            .find(|(name, entry)| !entry.used.get() && !allowed(name))
            .map(|(name, entry)| self.view(name, entry))
    }
}

/// Reads an index file, which maps the names of tensors to the names of their shards.
pub(crate) fn read_index(index: &Path) -> Result<BTreeMap<String, String>> {
    let mut object = read_object(index)?;
    let Some(Value::Object(map)) = object.remove("weight_map") else {
        return Err(Error::json(index, "`weight_map` is missing or not an object"));
    };
    if map.is_empty() {
        return Err(Error::json(index, "`weight_map` names no tensor"));
    }
    let mut shards = BTreeMap::new();
    for (tensor, shard) in map {
        let Value::String(shard) = shard else {
            let problem = format!("the shard of `{tensor}` is not a string");
            return Err(Error::json(index, problem));
        };
        let mut parts = Path::new(&shard).components();
        let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
        if !plain {
            let problem = format!("shard name {shard:?} is not a plain file name");
            return Err(Error::json(index, problem));
        }
        shards.insert(tensor, shard);
    }
    Ok(shards)
}

/// The names of the files that contain the weights of a checkpoint.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Weights<'a> {
    /// Name of the single weight file.
    File(&'a str),
    /// Name of the index file, which lists several weight files.
    Shards(&'a str),
}

/// Finds the weights of a folder by file names. As in transformers, `model.safetensors` comes
/// first, then `model.safetensors.index.json`. GPTQ checkpoints of 2023 use other names; for these,
/// the only index or the only safetensors file is used. Returns a message if there are no such
/// files.
pub(crate) fn weights<'a>(
    names: impl Iterator<Item = &'a str>,
) -> std::result::Result<Weights<'a>, String> {
    // The reference tensors of `verify` and the adapters of fine-tuning are not model weights.
    let others = ["reference.safetensors", "adapter_model.safetensors"];
    let is_own = |name: &&str| !name.contains('/') && !others.contains(name);
    let mut names: Vec<&str> = names.filter(is_own).collect();
    names.sort_unstable();
    let find = |wanted: &str| names.iter().copied().find(|&name| name == wanted);
    if let Some(usual) = find(WEIGHTS) {
        return Ok(Weights::File(usual));
    }
    if let Some(usual) = find(INDEX) {
        return Ok(Weights::Shards(usual));
    }
    let ending = |end: &str| -> Vec<&'a str> {
        names.iter().copied().filter(|name| name.ends_with(end)).collect()
    };
    match (&ending(INDEX_END)[..], &ending(".safetensors")[..]) {
        ([only], _) => Ok(Weights::Shards(only)),
        ([], [only]) => Ok(Weights::File(only)),
        ([], []) => Err(no_weights(&names)),
        ([], several) => Err(format!(
            "{} safetensors files ({}) but neither {WEIGHTS} nor {INDEX}",
            several.len(),
            several.join(", ")
        )),
        (several, _) => Err(format!(
            "{} indices ({}); keep the one that is meant, or name it {INDEX}",
            several.len(),
            several.join(", ")
        )),
    }
}

/// Describes the files that the folder contains instead of weights.
fn no_weights(names: &[&str]) -> String {
    let other = [".bin", ".pt", ".pth", ".ckpt", ".gguf", ".ggml", ".h5", ".msgpack"];
    let others: Vec<&str> =
        names.iter().copied().filter(|name| other.iter().any(|end| name.ends_with(end))).collect();
    if others.is_empty() {
        return "no safetensors weights".into();
    }
    format!(
        "no safetensors weights, only {}; convert them to safetensors, or take a checkpoint that \
         has them",
        others.join(", ")
    )
}

impl<'a> View<'a> {
    pub(crate) fn error(&self, problem: impl ToString) -> Error {
        Error::tensor(self.path, self.name, problem)
    }

    /// Returns an error unless the tensor has the shape `shape` and one of the dtypes in `dtypes`.
    pub(crate) fn expect(&self, shape: &[usize], dtypes: &[Dtype]) -> Result<()> {
        if self.shape != shape {
            return Err(self.error(format!("shape {:?}, expected {shape:?}", self.shape)));
        }
        if !dtypes.contains(&self.dtype) {
            return Err(self.error(format!("dtype {:?}, expected {dtypes:?}", self.dtype)));
        }
        Ok(())
    }

    /// Returns the bytes as numbers. Copies them if they are not aligned in the file.
    pub(crate) fn cast<T: bytemuck::Pod>(&self) -> Cow<'a, [T]> {
        match bytemuck::try_cast_slice(self.bytes) {
            Ok(slice) => Cow::Borrowed(slice),
            Err(_) => {
                let mut copy = vec![T::zeroed(); self.bytes.len() / size_of::<T>()];
                let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut copy);
                let len = bytes.len();
                bytes.copy_from_slice(&self.bytes[..len]);
                Cow::Owned(copy)
            }
        }
    }

    /// Converts a dense float tensor to f32.
    pub(crate) fn to_f32(self) -> Result<Vec<f32>> {
        let values: Vec<f32> = match self.dtype {
            Dtype::F32 => self.cast::<f32>().into_owned(),
            Dtype::F16 => {
                self.cast::<u16>().iter().map(|&b| half::f16::from_bits(b).to_f32()).collect()
            }
            Dtype::BF16 => {
                self.cast::<u16>().iter().map(|&b| half::bf16::from_bits(b).to_f32()).collect()
            }
            other => return Err(self.error(format!("dtype {other:?}, expected F16, BF16 or F32"))),
        };
        if values.iter().any(|v| !v.is_finite()) {
            return Err(self.error("holds NaN or infinite values"));
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::{Weights, weights};

    #[test]
    fn weights_are_the_usual_file_or_index_or_the_only_one() {
        let found = |names: &[&str]| weights(names.iter().copied()).map(|w| format!("{w:?}"));
        let is = |names: &[&str], expected: Weights<'_>| {
            assert_eq!(found(names).unwrap(), format!("{expected:?}"));
        };
        let usual = ["config.json", "a.safetensors", "model.safetensors", "reference.safetensors"];
        is(&usual, Weights::File("model.safetensors"));
        let both = ["model.safetensors", "model.safetensors.index.json"];
        is(&both, Weights::File("model.safetensors"));
        let named = ["config.json", "gptq_model-4bit-128g.safetensors", "sub/b.safetensors"];
        is(&named, Weights::File("gptq_model-4bit-128g.safetensors"));
        let shards = ["g.safetensors.index.json", "g-1.safetensors", "g-2.safetensors"];
        is(&shards, Weights::Shards("g.safetensors.index.json"));
        let usual = ["g.safetensors.index.json", "model.safetensors.index.json"];
        is(&usual, Weights::Shards("model.safetensors.index.json"));
        is(&["a.safetensors", "reference.safetensors"], Weights::File("a.safetensors"));
        let two = found(&["a.safetensors", "b.safetensors"]).unwrap_err();
        assert!(two.contains("a.safetensors, b.safetensors"), "{two}");
        let two = found(&["a.safetensors.index.json", "b.safetensors.index.json"]).unwrap_err();
        assert!(two.contains("2 indices"), "{two}");
        let none = found(&["config.json", "pytorch_model.bin"]).unwrap_err();
        assert!(none.contains("pytorch_model.bin") && none.contains("convert"), "{none}");
    }
}
