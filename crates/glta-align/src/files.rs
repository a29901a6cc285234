//! The folder of a run: names of its files, atomic writes, and a lock for one process at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use glta_comm::Communicator;
use ndarray::{Array2, ArrayView2};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::optimizer::Tensors;
use crate::{Error, Result};

pub(crate) const CONFIG: &str = "config.toml";
pub(crate) const NODES: &str = "nodes.safetensors";
pub(crate) const MODEL: &str = "model.safetensors";
pub(crate) const VECTORS: &str = "text_vectors.safetensors";
/// Name of the file with the text encoders whose vectors are concatenated, in order.
pub(crate) const ENCODERS: &str = "text_encoders.json";
/// Name of the file with the fitted TF-IDF encoder, if the run uses it.
pub(crate) const TF_IDF: &str = "tf_idf.safetensors";
pub(crate) const LINEAR: &str = "linear.safetensors";
/// Name of the file with the reports of the stages. It is written last, so it marks a finished run.
pub(crate) const HISTORY: &str = "history.json";
pub(crate) const STATE: &str = "state.safetensors";
pub(crate) const ITEMS: &str = "items.jsonl";
pub(crate) const USERS: &str = "users.jsonl";
/// Name of the file with the settings for the text of an item.
pub(crate) const ITEM_TEXT: &str = "item_text.toml";
pub(crate) const TEXTS: &str = "texts.jsonl";
/// Name of the file with the name and hash of the language model's checkpoint.
pub(crate) const CHECKPOINT: &str = "checkpoint.toml";
/// Name of the file with the templates of the prompts.
pub(crate) const PROMPTS: &str = "prompts.toml";

/// Returns the name of the file with the whitening of text encoder number `nth`.
pub(crate) fn whitening_file(nth: usize) -> String {
    format!("whitening-{nth}.safetensors")
}

/// The folder of a run, which rank 0 keeps locked until this value is dropped. All ranks read from
/// the folder, but only rank 0 writes.
#[derive(Debug)]
pub(crate) struct RunFolder {
    path: PathBuf,
    comm: Arc<dyn Communicator>,
    _lock: Option<File>,
}

impl RunFolder {
    /// Creates the folder if necessary, and locks it.
    pub(crate) fn open(path: &Path, comm: Arc<dyn Communicator>) -> Result<Self> {
        let lock = comm.is_root().then(|| Self::lock(path)).transpose()?;
        comm.barrier()?;
        Ok(Self { path: path.to_owned(), comm, _lock: lock })
    }

    fn lock(path: &Path) -> Result<File> {
        let lock = glta_core::lock_folder(path).map_err(|e| Error::io(path, e))?;
        lock.ok_or_else(|| Error::RunLocked { path: path.to_owned() })
    }

    /// Returns the ranks that share the folder.
    pub(crate) fn comm(&self) -> &dyn Communicator {
        &*self.comm
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Returns whether rank 0 finds the file `name` in the folder. All ranks get this value.
    pub(crate) fn has(&self, name: &str) -> Result<bool> {
        Ok(self.comm.root_says(self.file(name).exists())?)
    }

    /// Writes a file on rank 0. When the call returns, all ranks can read the file.
    pub(crate) fn write(&self, name: &str, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        if self.comm.is_root() {
            write(&self.file(name))?;
        }
        Ok(self.comm.barrier()?)
    }

    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        if !self.comm.is_root() {
            return Ok(());
        }
        let path = self.file(name);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&path, e)),
            _ => Ok(()),
        }
    }
}

/// Replaces a file with [`glta_core::write_whole`], and names the file in the error.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    glta_core::write_whole(path, bytes).map_err(|e| Error::io(path, e))
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::io(path, e))
}

pub(crate) fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| Error::io(path, e))
}

/// Writes tensors and one metadata entry. A tensor of type f64 is written as f64, and every other
/// tensor as f32.
pub(crate) fn write_tensors(path: &Path, tensors: &Tensors, metadata: &str) -> Result<()> {
    let mut data: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let flat = tensor.flatten_all()?;
        let (dtype, bytes) = match tensor.dtype() {
            DType::F64 => {
                let values = flat.to_vec1::<f64>()?;
                (Dtype::F64, values.iter().flat_map(|v| v.to_le_bytes()).collect())
            }
            _ => {
                let values = flat.to_dtype(DType::F32)?.to_vec1::<f32>()?;
                (Dtype::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect())
            }
        };
        data.push((name.clone(), dtype, tensor.dims().to_vec(), bytes));
    }
    let views: Vec<(&str, TensorView<'_>)> = data
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            TensorView::new(*dtype, shape.clone(), bytes)
                .map(|view| (name.as_str(), view))
                .map_err(|_| Error::Internal("a tensor's bytes do not fit its shape"))
        })
        .collect::<Result<_>>()?;
    let metadata = std::collections::HashMap::from([("glta".to_owned(), metadata.to_owned())]);
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(|e| Error::file(path, e))?;
    write_whole(path, &bytes)
}

/// Writes a matrix as the only tensor `name` of a file.
pub(crate) fn write_matrix(path: &Path, name: &str, values: ArrayView2<'_, f32>) -> Result<()> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let (rows, columns) = values.dim();
    let view = TensorView::new(Dtype::F32, vec![rows, columns], &bytes);
    let view = view.map_err(|_| Error::Internal("a matrix's bytes do not fit its shape"))?;
    let bytes = safetensors::serialize([(name, view)], None).map_err(|e| Error::file(path, e))?;
    write_whole(path, &bytes)
}

/// Reads a matrix with `rows` rows that [`write_matrix`] wrote.
pub(crate) fn read_matrix(path: &Path, name: &str, rows: usize) -> Result<Array2<f32>> {
    let bytes = read(path)?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| Error::file(path, format!("not a readable tensor file: {e}")))?;
    let view = file.tensor(name).map_err(|e| Error::file(path, e))?;
    let columns = match (view.dtype(), view.shape()) {
        (Dtype::F32, &[found, columns]) if found == rows => columns,
        (dtype, shape) => {
            let problem = format!("{name} is {dtype:?} {shape:?}, expected F32 [{rows}, _]");
            return Err(Error::file(path, problem));
        }
    };
    let values = view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    Array2::from_shape_vec((rows, columns), values)
        .map_err(|_| Error::Internal("a matrix's values do not fit its shape"))
}

/// Reads tensors that [`write_tensors`] wrote.
pub(crate) fn read_tensors(path: &Path, device: &Device) -> Result<(Tensors, String)> {
    let bytes = read(path)?;
    let damaged =
        |e: &dyn std::fmt::Display| Error::file(path, format!("not a readable tensor file: {e}"));
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| damaged(&e))?;
    let metadata = header
        .metadata()
        .as_ref()
        .and_then(|m| m.get("glta").cloned())
        .ok_or_else(|| damaged(&"the `glta` metadata entry is missing"))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| damaged(&e))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        let (data, shape) = (view.data(), view.shape());
        let tensor = match view.dtype() {
            Dtype::F32 => {
                let values = data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
                Tensor::from_vec::<_, f32>(values, shape, device)?
            }
            Dtype::F64 => {
                let values = data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
                Tensor::from_vec::<_, f64>(values, shape, device)?
            }
            other => return Err(damaged(&format!("tensor {name} is {other:?}, not F32 or F64"))),
        };
        tensors.insert(name.to_owned(), tensor);
    }
    Ok((tensors, metadata))
}

/// Removes `name` from `tensors` and returns the tensor. Returns an error if it is missing or if
/// its shape or dtype differs from the given one.
pub(crate) fn take(
    tensors: &mut Tensors,
    path: &Path,
    name: &str,
    shape: &[usize],
    dtype: DType,
) -> Result<Tensor> {
    let tensor = tensors
        .remove(name)
        .ok_or_else(|| Error::file(path, format!("tensor {name} is missing")))?;
    let found = (tensor.dims(), tensor.dtype());
    if found != (shape, dtype) {
        let (found, found_dtype) = found;
        let problem =
            format!("tensor {name} is {found_dtype:?} {found:?}, expected {dtype:?} {shape:?}");
        return Err(Error::file(path, problem));
    }
    Ok(tensor)
}

#[cfg(test)]
mod tests {
    use glta_comm::Alone;

    use super::*;

    #[test]
    fn tensors_round_trip_and_damage_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let a = Tensor::new(&[[1f32, 2.0], [3.0, f32::MIN_POSITIVE]], &Device::Cpu).unwrap();
        let c = Tensor::new(&[0.1f64, 1e-300], &Device::Cpu).unwrap();
        let tensors = Tensors::from([("a".into(), a.clone()), ("c".into(), c.clone())]);
        write_tensors(&path, &tensors, "{\"step\":3}").unwrap();
        let (mut back, metadata) = read_tensors(&path, &Device::Cpu).unwrap();
        assert_eq!(metadata, "{\"step\":3}");
        assert!(take(&mut back.clone(), &path, "a", &[4], DType::F32).is_err());
        let b = take(&mut back, &path, "a", &[2, 2], DType::F32).unwrap();
        assert_eq!(a.to_vec2::<f32>().unwrap(), b.to_vec2::<f32>().unwrap());
        let message = take(&mut back.clone(), &path, "c", &[2], DType::F32).unwrap_err();
        assert!(message.to_string().contains("tensor c is F64 [2], expected F32 [2]"));
        let b = take(&mut back, &path, "c", &[2], DType::F64).unwrap();
        assert_eq!(c.to_vec1::<f64>().unwrap(), b.to_vec1::<f64>().unwrap());

        let bytes = read(&path).unwrap();
        for cut in [0, 7, 20, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let message = read_tensors(&path, &Device::Cpu).unwrap_err().to_string();
            assert!(message.contains("x.safetensors"), "{message}");
        }
    }

    #[test]
    fn a_matrix_round_trips_and_another_shape_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vectors.safetensors");
        let matrix = ndarray::array![[1.5f32, f32::MIN_POSITIVE], [-0.0, 3.0], [7.0, 1e-30]];
        // The second view has rows that are not contiguous.
        for view in [matrix.view(), matrix.t()] {
            write_matrix(&path, "vectors", view).unwrap();
            assert_eq!(read_matrix(&path, "vectors", view.nrows()).unwrap(), view);
        }
        let message = read_matrix(&path, "vectors", 3).unwrap_err().to_string();
        assert!(message.contains("vectors is F32 [2, 3], expected F32 [3, _]"), "{message}");
        assert!(read_matrix(&path, "others", 2).is_err());
        std::fs::write(&path, b"no tensors").unwrap();
        assert!(read_matrix(&path, "vectors", 2).unwrap_err().to_string().contains("readable"));
    }

    #[test]
    fn a_locked_folder_is_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let first = RunFolder::open(folder.path(), Arc::new(Alone)).unwrap();
        assert!(matches!(
            RunFolder::open(folder.path(), Arc::new(Alone)),
            Err(Error::RunLocked { .. })
        ));
        drop(first);
        // Opening a folder deletes incomplete files of a killed process.
        let left = folder.path().join(".writing-x");
        std::fs::write(&left, "half").unwrap();
        RunFolder::open(folder.path(), Arc::new(Alone)).unwrap();
        assert!(!left.exists());
    }
}
