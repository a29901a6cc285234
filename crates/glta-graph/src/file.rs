//! Saves and loads node embeddings.

use std::path::Path;

use ndarray::Array2;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::{Error, NodeEmbeddings, Result};

impl NodeEmbeddings {
    /// Writes a safetensors file with the tensors `users` and `items`. The file appears under its
    /// name only when it is complete.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let io = |source| Error::Io { path: path.to_owned(), source };
        let bytes = |matrix: &Array2<f32>| -> Vec<u8> {
            matrix.iter().flat_map(|x| x.to_le_bytes()).collect()
        };
        let (users, items) = (bytes(&self.users), bytes(&self.items));
        let view = |matrix: &Array2<f32>, data| {
            TensorView::new(Dtype::F32, vec![matrix.nrows(), matrix.ncols()], data)
                .map_err(|e| format_error(path, e.to_string()))
        };
        let tensors =
            [("users", view(&self.users, &users)?), ("items", view(&self.items, &items)?)];
        let file =
            safetensors::serialize(tensors, None).map_err(|e| format_error(path, e.to_string()))?;
        glta_core::write_whole(path, &file).map_err(io)?;
        Ok(())
    }

    /// Reads a file that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if the file cannot be read, and [`Error::Format`] if it is not
    /// safetensors or does not contain two `f32` matrices of the same width.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file =
            std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let tensors =
            SafeTensors::deserialize(&file).map_err(|e| format_error(path, e.to_string()))?;
        let matrix = |name: &str| -> Result<Array2<f32>> {
            let tensor = tensors.tensor(name).map_err(|e| format_error(path, e.to_string()))?;
            let &[rows, columns] = tensor.shape() else {
                let problem = format!("tensor `{name}` has shape {:?}, not two", tensor.shape());
                return Err(format_error(path, problem));
            };
            if tensor.dtype() != Dtype::F32 {
                let problem = format!("tensor `{name}` is {:?}, not F32", tensor.dtype());
                return Err(format_error(path, problem));
            }
            let values = tensor.data().chunks_exact(4);
            let values = values.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            Array2::from_shape_vec((rows, columns), values.collect())
                .map_err(|e| format_error(path, format!("tensor `{name}`: {e}")))
        };
        let (users, items) = (matrix("users")?, matrix("items")?);
        if users.ncols() != items.ncols() {
            let problem =
                format!("users have {} dimensions, items {}", users.ncols(), items.ncols());
            return Err(format_error(path, problem));
        }
        Ok(Self { users, items })
    }
}

fn format_error(path: &Path, problem: String) -> Error {
    Error::Format { path: path.to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saved_and_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nodes.safetensors");
        let embeddings = NodeEmbeddings {
            users: Array2::from_shape_fn((3, 5), |(r, c)| (r * 10 + c) as f32 + 0.25),
            items: Array2::from_shape_fn((4, 5), |(r, c)| -((r * 10 + c) as f32)),
        };
        embeddings.save(&path).unwrap();
        assert_eq!(NodeEmbeddings::load(&path).unwrap(), embeddings);
        // The folder contains no temporary file.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let message = NodeEmbeddings::load(&path).unwrap_err().to_string();
        assert!(message.contains("nodes.safetensors"), "{message}");
        let absent = folder.path().join("absent").join("x");
        assert!(matches!(embeddings.save(&absent), Err(Error::Io { .. })));
        assert!(matches!(NodeEmbeddings::load(&absent), Err(Error::Io { .. })));
    }

    #[test]
    fn other_shapes_and_names_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let data = [0u8; 16];
        let view = |dtype, shape: &[usize]| TensorView::new(dtype, shape.to_vec(), &data).unwrap();
        for (users, items, expected) in [
            (view(Dtype::F32, &[4]), view(Dtype::F32, &[4, 1]), "shape"),
            (view(Dtype::F16, &[4, 2]), view(Dtype::F32, &[2, 2]), "F16"),
            (view(Dtype::F32, &[4, 1]), view(Dtype::F32, &[2, 2]), "dimensions"),
        ] {
            let bytes = safetensors::serialize([("users", users), ("items", items)], None);
            std::fs::write(&path, bytes.unwrap()).unwrap();
            let message = NodeEmbeddings::load(&path).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        let bytes = safetensors::serialize([("users", view(Dtype::F32, &[2, 2]))], None);
        std::fs::write(&path, bytes.unwrap()).unwrap();
        let message = NodeEmbeddings::load(&path).unwrap_err().to_string();
        assert!(message.contains("items"), "{message}");
    }
}
