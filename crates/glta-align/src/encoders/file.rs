//! Reads files of vectors by raw id.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use ndarray::{Array2, ArrayView2};
use ndarray_npy::ReadNpyExt;
use rustc_hash::FxHashMap;
use safetensors::{Dtype, SafeTensors};

use crate::files::{read, read_text};
use crate::{Error, Result};

/// Returns the vectors of `raw_ids`, in order. An id that is not in the file gets a vector of
/// zeros.
pub(super) fn vectors_of<'a>(
    path: &Path,
    raw_ids: impl IntoIterator<Item = &'a str>,
) -> Result<Array2<f32>> {
    let (vectors, ids) = match path.extension().and_then(|e| e.to_str()) {
        Some("npy") => (npy(path)?, None),
        Some("safetensors") => safetensors(path)?,
        _ => return Err(Error::file(path, "files of vectors must be .npy or .safetensors")),
    };
    let ids = match ids {
        Some(ids) => ids,
        None => lines(path)?,
    };
    if ids.len() != vectors.nrows() {
        let (ids, vectors) = (ids.len(), vectors.nrows());
        return Err(Error::file(path, format!("there are {vectors} vectors but {ids} ids")));
    }
    let mut rows: FxHashMap<&str, usize> = FxHashMap::default();
    for (row, id) in ids.iter().enumerate() {
        if let Some(first) = rows.insert(id, row) {
            let problem = format!("the id {id} belongs to the vectors {first} and {row}");
            return Err(Error::file(path, problem));
        }
    }
    if let Some(((row, _), _)) = vectors.indexed_iter().find(|(_, v)| !v.is_finite()) {
        let problem = format!("the vector of {} is not finite", ids[row]);
        return Err(Error::file(path, problem));
    }
    check_distinct(vectors.view()).map_err(|problem| Error::file(path, problem))?;
    let wanted: Vec<Option<&usize>> = raw_ids.into_iter().map(|id| rows.get(id)).collect();
    let found = wanted.iter().flatten().count();
    if found == 0 {
        let first = ids.first().map_or("none", String::as_str);
        let problem = format!("no item has one of its ids; the first of them is {first}");
        return Err(Error::file(path, problem));
    }
    if found < wanted.len() {
        let path = path.display();
        tracing::warn!("{path}: {} of {} items have no vector", wanted.len() - found, wanted.len());
    }
    let mut out = Array2::zeros((wanted.len(), vectors.ncols()));
    for (row, from) in wanted.into_iter().enumerate() {
        if let Some(&from) = from {
            out.row_mut(row).assign(&vectors.row(from));
        }
    }
    Ok(out)
}

/// Returns an error if the vectors do not distinguish items: at most one of them is not zero, or
/// all that are not zero are equal.
pub(super) fn check_distinct(vectors: ArrayView2<'_, f32>) -> std::result::Result<(), String> {
    let mut rows = vectors.rows().into_iter().filter(|row| row.iter().any(|&v| v != 0.0));
    match (rows.next(), rows.next()) {
        (Some(first), Some(second)) if first == second && rows.all(|row| row == first) => {
            Err("all vectors are equal".into())
        }
        (Some(_), Some(_)) => Ok(()),
        (first, _) => {
            let n = usize::from(first.is_some());
            Err(format!("only {n} of the vectors are not zero"))
        }
    }
}

/// Reads the ids from the file `NAME.ids` next to the vectors, one per line.
fn lines(path: &Path) -> Result<Vec<String>> {
    let mut name = path.as_os_str().to_owned();
    name.push(".ids");
    let beside = PathBuf::from(name);
    if !beside.exists() {
        let beside = beside.display();
        return Err(Error::file(path, format!("{beside} with one raw id per line is missing")));
    }
    Ok(read_text(&beside)?.lines().map(str::to_owned).collect())
}

fn npy(path: &Path) -> Result<Array2<f32>> {
    check_size(path)?;
    let open = || File::open(path).map(BufReader::new).map_err(|e| Error::io(path, e));
    match Array2::<f32>::read_npy(open()?) {
        Ok(vectors) => Ok(vectors),
        Err(ndarray_npy::ReadNpyError::WrongDescriptor(_)) => Array2::<f64>::read_npy(open()?)
            .map(|vectors| vectors.mapv(|v| v as f32))
            .map_err(|e| npy_error(path, &e)),
        Err(e) => Err(npy_error(path, &e)),
    }
}

fn npy_error(path: &Path, error: &ndarray_npy::ReadNpyError) -> Error {
    match error {
        ndarray_npy::ReadNpyError::WrongDescriptor(descriptor) => {
            Error::file(path, format!("values of type {descriptor} are not f32 or f64"))
        }
        other => Error::file(path, other),
    }
}

/// Returns an error if a file is too short for the shape in its header, because memory for the
/// whole shape is allocated before the values are read. The reader reports other problems of a
/// header.
fn check_size(path: &Path) -> Result<()> {
    let io = |e| Error::io(path, e);
    let mut file = File::open(path).map_err(io)?;
    let bytes = file.metadata().map_err(io)?.len();
    let mut head = Vec::new();
    file.by_ref().take(1 << 12).read_to_end(&mut head).map_err(io)?;
    let head = String::from_utf8_lossy(&head);
    let shape = head.split("'shape'").nth(1).and_then(|rest| rest.split(['(', ')']).nth(1));
    let values = shape.and_then(|shape| {
        let sizes = shape.split(',').map(str::trim).filter(|size| !size.is_empty());
        sizes.map(|size| size.parse::<u64>().ok()).try_fold(1u64, |all, n| all.checked_mul(n?))
    });
    match (shape, values) {
        // Every value has at least one byte.
        (Some(shape), values) if values.is_none_or(|values| values > bytes) => {
            let problem = format!("{bytes} bytes are too few for the shape ({shape})");
            Err(Error::file(path, problem))
        }
        _ => Ok(()),
    }
}

fn safetensors(path: &Path) -> Result<(Array2<f32>, Option<Vec<String>>)> {
    let bytes = read(path)?;
    let damaged = |e: &dyn std::fmt::Display| {
        Error::file(path, format!("not a readable file of vectors: {e}"))
    };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| damaged(&e))?;
    let ids = header.metadata().as_ref().and_then(|metadata| metadata.get("ids"));
    let ids = ids.map(|ids| serde_json::from_str(ids)).transpose().map_err(|e| damaged(&e))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| damaged(&e))?;
    let tensor = file.tensor("vectors").map_err(|e| damaged(&e))?;
    let values: Vec<f32> = match tensor.dtype() {
        Dtype::F32 => tensor.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F64 => {
            let values = tensor.data().as_chunks().0.iter();
            values.map(|b| f64::from_le_bytes(*b) as f32).collect()
        }
        other => return Err(damaged(&format!("vectors are {other:?}, not F32 or F64"))),
    };
    let [rows, columns] = *tensor.shape() else {
        return Err(damaged(&format!("vectors have the shape {:?}", tensor.shape())));
    };
    let vectors = Array2::from_shape_vec((rows, columns), values).map_err(|e| damaged(&e))?;
    Ok((vectors, ids))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use ndarray::array;
    use ndarray_npy::WriteNpyExt;
    use safetensors::tensor::TensorView;

    use super::*;

    const WANTED: [&str; 3] = ["007", "tea", "none"];

    fn message(path: &Path) -> String {
        super::vectors_of(path, WANTED).unwrap_err().to_string()
    }

    #[test]
    fn npy_files_are_read_by_their_ids_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vectors.npy");
        let expected = array![[3.0, 4.0], [1.0, 2.0], [0.0, 0.0]];
        let ids = folder.path().join("vectors.npy.ids");
        let single = array![[1.0f32, 2.0], [3.0, 4.0]];
        single.write_npy(File::create(&path).unwrap()).unwrap();
        assert!(message(&path).contains("vectors.npy.ids"));
        std::fs::write(&ids, "tea\r\n007\r\n").unwrap();
        assert_eq!(super::vectors_of(&path, WANTED).unwrap(), expected);
        single.mapv(f64::from).write_npy(File::create(&path).unwrap()).unwrap();
        assert_eq!(super::vectors_of(&path, WANTED).unwrap(), expected);

        for (text, problem) in [
            ("tea\n", "2 vectors but 1 ids"),
            ("tea\ntea\n", "tea belongs to the vectors 0 and 1"),
            ("7\nTea\n", "the first of them is 7"),
        ] {
            std::fs::write(&ids, text).unwrap();
            assert!(message(&path).contains(problem), "{}", message(&path));
        }
        std::fs::write(&ids, "tea\n007\n").unwrap();
        array![[1.0f32, f32::NAN], [3.0, 4.0]].write_npy(File::create(&path).unwrap()).unwrap();
        assert!(message(&path).contains("of tea is not finite"));
        let bytes = std::fs::read(&path).unwrap();
        for cut in [0, 9, 60, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert!(message(&path).contains("vectors.npy"));
        }
        // A header with a too large shape allocates no memory.
        let huge = String::from_utf8_lossy(&bytes).replace("(2, 2)", "(10000000000, 20000000)");
        std::fs::write(&path, huge.as_bytes()).unwrap();
        assert!(message(&path).contains("too few for the shape (10000000000, 20000000)"));
        let mut half = bytes.clone();
        let at = bytes.windows(3).position(|w| w == b"<f4").unwrap();
        half[at + 2] = b'2';
        std::fs::write(&path, &half).unwrap();
        assert!(message(&path).contains("not f32 or f64"), "{}", message(&path));
        for (values, problem) in [
            (array![[0.0f32, 0.0], [0.0, 0.0]], "only 0 of the vectors are not zero"),
            (array![[1.0, 2.0], [1.0, 2.0]], "all vectors are equal"),
        ] {
            values.write_npy(File::create(&path).unwrap()).unwrap();
            assert!(message(&path).contains(problem), "{}", message(&path));
        }
        assert!(message(&folder.path().join("vectors.txt")).contains(".safetensors"));
    }

    #[test]
    fn safetensors_contain_their_ids() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vectors.safetensors");
        let bytes: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, vec![2, 2], &bytes).unwrap();
        let ids = HashMap::from([("ids".to_owned(), "[\"tea\",\"007\"]".to_owned())]);
        let whole = safetensors::serialize([("vectors", view)], Some(ids)).unwrap();
        std::fs::write(&path, &whole).unwrap();
        let expected = array![[3.0, 4.0], [1.0, 2.0], [0.0, 0.0]];
        assert_eq!(super::vectors_of(&path, WANTED).unwrap(), expected);
        for cut in [0, 9, 60, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert!(message(&path).contains("vectors.safetensors"));
        }
    }
}
