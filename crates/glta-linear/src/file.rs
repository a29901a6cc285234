//! A fitted model's file.

use std::collections::HashMap;
use std::path::Path;

use glta_core::write_whole;
use glta_data::Interactions;
use ndarray::{Array2, ArrayView2};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::model::similarities;
use crate::{Ease, Error, LinearModel, LinearReport, Result};

/// Metadata entry with the [`LinearReport`] as JSON.
const REPORT: &str = "glta";

impl LinearModel {
    /// Writes the model as safetensors: `weights` (F32, `(items, items)`), `diagonal`
    /// (F64, `(items,)`), and the report. The training data and the text vectors are not
    /// in it.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let damaged = |e: &dyn std::fmt::Display| Error::file(path, e);
        let (weights, diagonal) = (self.ease.weights(), self.ease.diagonal());
        let items = diagonal.len();
        let weights: Vec<u8> = weights.iter().flat_map(|v| v.to_le_bytes()).collect();
        let diagonal: Vec<u8> = diagonal.iter().flat_map(|v| v.to_le_bytes()).collect();
        let weights =
            TensorView::new(Dtype::F32, vec![items, items], &weights).map_err(|e| damaged(&e))?;
        let diagonal =
            TensorView::new(Dtype::F64, vec![items], &diagonal).map_err(|e| damaged(&e))?;
        let report = serde_json::to_string(&self.report).map_err(|e| damaged(&e))?;
        let metadata = HashMap::from([(REPORT.to_owned(), report)]);
        let views = [("weights", weights), ("diagonal", diagonal)];
        let bytes = safetensors::serialize(views, Some(metadata)).map_err(|e| damaged(&e))?;
        write_whole(path, &bytes).map_err(Error::io(path))
    }

    /// Reads what [`save`](Self::save) wrote of a model that was fitted on `train` with
    /// these text vectors, `(items, dim)`.
    ///
    /// # Errors
    /// A file that cannot be read, is damaged or belongs to another number of items;
    /// vectors that do not fit.
    pub fn load(
        path: impl AsRef<Path>,
        train: &Interactions,
        vectors: Option<ArrayView2<'_, f32>>,
    ) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let damaged = |e: &dyn std::fmt::Display| {
            Error::file(path, format!("not a readable linear model: {e}"))
        };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| damaged(&e))?;
        let report = header
            .metadata()
            .as_ref()
            .and_then(|metadata| metadata.get(REPORT))
            .ok_or_else(|| damaged(&format!("the `{REPORT}` metadata entry is missing")))?;
        let report: LinearReport = serde_json::from_str(report).map_err(|e| damaged(&e))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| damaged(&e))?;
        let tensor = |name: &str, dtype: Dtype, shape: &[usize]| {
            let tensor =
                file.tensor(name).map_err(|_| damaged(&format!("tensor {name} is missing")))?;
            if tensor.dtype() != dtype || tensor.shape() != shape {
                return Err(damaged(&format!(
                    "tensor {name} is {:?} of shape {:?}, but {dtype:?} of shape {shape:?} was \
                     expected",
                    tensor.dtype(),
                    tensor.shape()
                )));
            }
            Ok(tensor.data())
        };
        let items = train.n_items();
        let weights = tensor("weights", Dtype::F32, &[items, items])?;
        let weights = weights.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let weights = Array2::from_shape_vec((items, items), weights).map_err(|e| damaged(&e))?;
        let diagonal = tensor("diagonal", Dtype::F64, &[items])?;
        let diagonal = diagonal.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
        if report.neighbours > 0.0 && vectors.is_none() {
            return Err(Error::TextVectors(format!(
                "the model of {} counts text neighbours; give the vectors it was fitted with",
                path.display()
            )));
        }
        let vectors = vectors.filter(|_| report.neighbours > 0.0);
        let text = vectors.map(|v| similarities(v, train)).transpose()?;
        let ease = Ease::from_parts(weights, diagonal, train)?;
        Ok(Self::new(ease, text, train, report))
    }
}
