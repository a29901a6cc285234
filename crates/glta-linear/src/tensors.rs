//! Safetensors files of this crate.

use std::collections::HashMap;
use std::path::Path;

use glta_core::write_whole;
use ndarray::Array2;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::sparse::SparseRows;
use crate::{Error, Result};

/// Metadata entry of what is not a tensor, as JSON.
const HEADER: &str = "glta";

/// Tensors to be written.
#[derive(Default)]
pub(crate) struct TensorFile(Vec<(String, Dtype, Vec<usize>, Vec<u8>)>);

impl TensorFile {
    pub(crate) fn put(&mut self, name: &str, dtype: Dtype, shape: Vec<usize>, bytes: Vec<u8>) {
        self.0.push((name.to_owned(), dtype, shape, bytes));
    }

    pub(crate) fn matrix(&mut self, name: &str, values: &Array2<f32>) {
        self.put(name, Dtype::F32, values.shape().to_vec(), bytes_f32(values.iter()));
    }

    pub(crate) fn sparse(&mut self, name: &str, rows: &SparseRows) {
        let (offsets, columns, values) = rows.compressed();
        let ends: Vec<u8> = offsets.iter().flat_map(|&v| (v as u64).to_le_bytes()).collect();
        let items: Vec<u8> = columns.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.put(&format!("{name}.offsets"), Dtype::U64, vec![offsets.len()], ends);
        self.put(&format!("{name}.items"), Dtype::U32, vec![columns.len()], items);
        let values_name = format!("{name}.values");
        self.put(&values_name, Dtype::F32, vec![values.len()], bytes_f32(values.iter()));
    }

    pub(crate) fn write(self, path: &Path, header: Option<String>) -> Result<()> {
        let damaged = |e: safetensors::SafeTensorError| Error::file(path, e);
        let views = self.0.iter().map(|(name, dtype, shape, bytes)| {
            Ok((name, TensorView::new(*dtype, shape.clone(), bytes).map_err(damaged)?))
        });
        let views = views.collect::<Result<Vec<_>>>()?;
        let header = header.map(|header| HashMap::from([(HEADER.to_owned(), header)]));
        let bytes = safetensors::serialize(views, header).map_err(damaged)?;
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

/// The tensors of a file.
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

    /// The metadata entry.
    pub(crate) fn header(&self) -> Read<&str> {
        self.header.as_deref().ok_or_else(|| format!("the `{HEADER}` metadata entry is missing"))
    }

    /// A tensor's shape and bytes.
    fn tensor(&self, name: &str, dtype: Dtype, dimensions: usize) -> Read<(Vec<usize>, &[u8])> {
        let tensor = self.file.tensor(name).map_err(|_| format!("tensor {name} is missing"))?;
        let shape = tensor.shape().to_vec();
        if tensor.dtype() != dtype || shape.len() != dimensions {
            return Err(format!(
                "tensor {name} is {:?} of shape {shape:?}, but {dtype:?} of {dimensions} \
                 dimensions was expected",
                tensor.dtype()
            ));
        }
        Ok((shape, tensor.data()))
    }

    /// A row of values; `length` of them, if that is known.
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
                Err(format!("tensor {name} has {} values, but {length} were expected", shape[0]))
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

    /// A matrix of `rows` rows, and of `columns` if they are known.
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
                "tensor {name} has the shape {shape:?}, but {rows} rows and {columns} columns \
                 were expected"
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

    /// Sparse rows over so many items.
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
