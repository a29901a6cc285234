//! Writes and reads safetensors files of this crate.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use glta_core::write_whole;
use ndarray::Array2;
use safetensors::{Dtype, SafeTensors, View};

use crate::sparse::SparseRows;
use crate::{Error, Result};

/// Name of the metadata entry with data other than tensors, as JSON.
const HEADER: &str = "glta";

/// The tensors of a file that will be written.
#[derive(Default)]
pub(crate) struct TensorFile<'a>(Vec<(String, Tensor<'a>)>);

struct Tensor<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    values: Values<'a>,
}

/// Values that are converted to bytes when they are written.
enum Values<'a> {
    Bytes(Vec<u8>),
    U64(Cow<'a, [usize]>),
    U32(Cow<'a, [u32]>),
    F32(Cow<'a, [f32]>),
}

impl View for &Tensor<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match &self.values {
            Values::Bytes(bytes) => Cow::Borrowed(bytes),
            Values::U64(values) => bytes(values, |v| (*v as u64).to_le_bytes()),
            Values::U32(values) => bytes(values, |v| v.to_le_bytes()),
            Values::F32(values) => bytes(values, |v| v.to_le_bytes()),
        }
    }

    fn data_len(&self) -> usize {
        match &self.values {
            Values::Bytes(bytes) => bytes.len(),
            Values::U64(values) => 8 * values.len(),
            Values::U32(values) => 4 * values.len(),
            Values::F32(values) => 4 * values.len(),
        }
    }
}

fn bytes<'a, T, const N: usize>(values: &[T], of: impl Fn(&T) -> [u8; N]) -> Cow<'a, [u8]> {
    let mut bytes = vec![0; N * values.len()];
    bytes.as_chunks_mut().0.iter_mut().zip(values).for_each(|(to, value)| *to = of(value));
    Cow::Owned(bytes)
}

impl<'a> TensorFile<'a> {
    pub(crate) fn put(&mut self, name: &str, dtype: Dtype, shape: Vec<usize>, bytes: Vec<u8>) {
        self.0.push((name.to_owned(), Tensor { dtype, shape, values: Values::Bytes(bytes) }));
    }

    pub(crate) fn matrix(&mut self, name: &str, values: &'a Array2<f32>) {
        let all = match values.as_slice() {
            Some(all) => Cow::Borrowed(all),
            None => Cow::Owned(values.iter().copied().collect()),
        };
        let (dtype, shape) = (Dtype::F32, values.shape().to_vec());
        self.0.push((name.to_owned(), Tensor { dtype, shape, values: Values::F32(all) }));
    }

    pub(crate) fn sparse(&mut self, name: &str, rows: &'a SparseRows) {
        let (offsets, columns, values) = rows.compressed();
        for (part, dtype, length, values) in [
            ("offsets", Dtype::U64, offsets.len(), Values::U64(offsets)),
            ("items", Dtype::U32, columns.len(), Values::U32(columns)),
            ("values", Dtype::F32, values.len(), Values::F32(values)),
        ] {
            let tensor = Tensor { dtype, shape: vec![length], values };
            self.0.push((format!("{name}.{part}"), tensor));
        }
    }

    pub(crate) fn write(self, path: &Path, header: Option<String>) -> Result<()> {
        let views = self.0.iter().map(|(name, tensor)| (name, tensor));
        let header = header.map(|header| HashMap::from([(HEADER.to_owned(), header)]));
        let bytes = safetensors::serialize(views, header).map_err(|e| Error::file(path, e))?;
        write_whole(path, &bytes).map_err(Error::io(path))
    }
}

pub(crate) fn bytes_f32<'a>(values: impl Iterator<Item = &'a f32>) -> Vec<u8> {
    values.flat_map(|v| v.to_le_bytes()).collect()
}

pub(crate) fn bytes_f64<'a>(values: impl Iterator<Item = &'a f64>) -> Vec<u8> {
    values.flat_map(|v| v.to_le_bytes()).collect()
}

type Read<T> = std::result::Result<T, String>;

/// The tensors of a file that was read.
pub(crate) struct Tensors<'a> {
    file: SafeTensors<'a>,
    header: Option<String>,
}

impl<'a> Tensors<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Read<Self> {
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
        let header = metadata.metadata().as_ref().and_then(|m| m.get(HEADER).cloned());
        let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
        Ok(Self { file, header })
    }

    /// Returns the metadata entry.
    pub(crate) fn header(&self) -> Read<&str> {
        self.header.as_deref().ok_or_else(|| format!("the `{HEADER}` metadata entry is missing"))
    }

    /// Returns the shape and the bytes of a tensor.
    fn tensor(&self, name: &str, dtype: Dtype, dimensions: usize) -> Read<(Vec<usize>, &[u8])> {
        let tensor = self.file.tensor(name).map_err(|_| format!("tensor {name} is missing"))?;
        let shape = tensor.shape().to_vec();
        if tensor.dtype() != dtype || shape.len() != dimensions {
            return Err(format!(
                "tensor {name} is {:?} of shape {shape:?}, expected {dtype:?} of {dimensions} \
                 dimensions",
                tensor.dtype()
            ));
        }
        Ok((shape, tensor.data()))
    }

    /// Returns a row of values. `length` is checked if it is given.
    fn row<T, const N: usize>(
        &self,
        name: &str,
        dtype: Dtype,
        length: Option<usize>,
        from: impl Fn([u8; N]) -> T,
    ) -> Read<Vec<T>> {
        let (shape, bytes) = self.tensor(name, dtype, 1)?;
        match length {
            Some(length) if shape != [length] => {
                Err(format!("tensor {name} has {} values, expected {length}", shape[0]))
            }
            _ => Ok(bytes.as_chunks().0.iter().map(|b| from(*b)).collect()),
        }
    }

    pub(crate) fn f64(&self, name: &str, length: usize) -> Read<Vec<f64>> {
        let values = self.row(name, Dtype::F64, Some(length), f64::from_le_bytes)?;
        finite(name, values.iter().all(|v| v.is_finite()))?;
        Ok(values)
    }

    pub(crate) fn f32(&self, name: &str, length: usize) -> Read<Vec<f32>> {
        let values = self.row(name, Dtype::F32, Some(length), f32::from_le_bytes)?;
        finite(name, values.iter().all(|v| v.is_finite()))?;
        Ok(values)
    }

    pub(crate) fn bytes(&self, name: &str) -> Read<Vec<u8>> {
        self.row(name, Dtype::U8, None, |[byte]: [u8; 1]| byte)
    }

    /// Returns a matrix with `rows` rows. `columns` is checked if it is given.
    pub(crate) fn matrix(
        &self,
        name: &str,
        rows: usize,
        columns: Option<usize>,
    ) -> Read<Array2<f32>> {
        let (shape, bytes) = self.tensor(name, Dtype::F32, 2)?;
        if shape[0] != rows || columns.is_some_and(|columns| shape[1] != columns) {
            let columns = columns.map_or("any".into(), |columns| columns.to_string());
            return Err(format!(
                "tensor {name} has the shape {shape:?}, expected {rows} rows and {columns} columns"
            ));
        }
        let values: Vec<f32> = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        finite(name, values.iter().all(|v| v.is_finite()))?;
        Array2::from_shape_vec((shape[0], shape[1]), values).map_err(|e| e.to_string())
    }

    pub(crate) fn matrix_f64(&self, name: &str) -> Read<Array2<f64>> {
        let (shape, bytes) = self.tensor(name, Dtype::F64, 2)?;
        let values: Vec<f64> = bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
        finite(name, values.iter().all(|v| v.is_finite()))?;
        Array2::from_shape_vec((shape[0], shape[1]), values).map_err(|e| e.to_string())
    }

    /// Returns sparse rows over `items` items.
    pub(crate) fn sparse(&self, name: &str, items: usize) -> Read<SparseRows> {
        let offsets =
            self.row(&format!("{name}.offsets"), Dtype::U64, Some(items + 1), |bytes| {
                u64::from_le_bytes(bytes) as usize
            })?;
        let columns = self.row(&format!("{name}.items"), Dtype::U32, None, u32::from_le_bytes)?;
        let values = self.row(&format!("{name}.values"), Dtype::F32, None, f32::from_le_bytes)?;
        SparseRows::checked(items, offsets, columns, values)
            .map_err(|problem| format!("{name}: {problem}"))
    }
}

fn finite(name: &str, finite: bool) -> Read<()> {
    if finite { Ok(()) } else { Err(format!("tensor {name} has values that are not finite")) }
}
