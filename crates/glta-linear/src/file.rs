//! Saves and loads a fitted model.

use std::path::Path;
use std::sync::Arc;

use glta_data::Interactions;
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use crate::ease::Leave;
use crate::tensors::{TensorFile, Tensors, bytes_f64};
use crate::weights::{Coarse, Weights};
use crate::{Ease, Error, Form, LinearModel, LinearReport, Result, TextVectors};

/// The metadata of a saved model.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    report: LinearReport,
    /// Maximum number of co-occurring items per item.
    rows: usize,
    /// Maximum number of text neighbours per item.
    text_neighbours: usize,
}

impl LinearModel {
    /// Saves the model of `I` items as safetensors. Sparse matrices are compressed rows by source:
    ///
    /// | tensor | | |
    /// | --- | --- | --- |
    /// | `diagonal` | F64 `(I,)` | `P_jj` |
    /// | `weights` | F32 `(I, I)` | of the dense form |
    /// | `weights.offsets`, `weights.items`, `weights.values` | U64 `(I + 1,)`, U32, F32 | of the local form |
    /// | `coarse.vectors`, `coarse.weights` | F32 `(I, rank)` | its low-rank part |
    /// | `neighbours.offsets`, `.items`, `.values` | U64 `(I + 1,)`, U32, F32 | text neighbours, unless their weight is 0 |
    ///
    /// The metadata entry `glta` contains the report. The training data and the text vectors are
    /// not in the file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let mut file = TensorFile::default();
        let diagonal = self.ease.diagonal();
        file.put("diagonal", Dtype::F64, vec![diagonal.len()], bytes_f64(diagonal.iter()));
        match &self.ease.weights {
            Weights::Dense(weights) => file.matrix("weights", weights),
            Weights::Local { rows, coarse } => {
                file.sparse("weights", rows);
                if let Some(Coarse { vectors, weights }) = coarse {
                    file.matrix("coarse.vectors", vectors);
                    file.matrix("coarse.weights", weights);
                }
            }
        }
        if let Some(text) = self.text.as_ref().filter(|_| self.report.neighbours > 0.0) {
            file.sparse("neighbours", text);
        }
        let Leave { rows, text_neighbours, .. } = self.ease.leave;
        let header = Header { report: self.report.clone(), rows, text_neighbours };
        let header = serde_json::to_string(&header).map_err(|e| Error::file(path, e))?;
        file.write(path, Some(header))
    }

    /// Loads a model that [`save`](Self::save) wrote and that was fitted on `train`. `text`
    /// contains the text vectors of the fit, which only [`score_without`](Self::score_without) of a
    /// local model needs.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is damaged, or if the model in the file or
    /// the vectors have a different number of items than `train`.
    pub fn load(
        path: impl AsRef<Path>,
        train: &Interactions,
        text: Option<&TextVectors>,
    ) -> Result<Self> {
        let (path, items) = (path.as_ref(), train.n_items());
        if let Some(text) = text {
            text.check(items)?;
        }
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let read = || -> std::result::Result<_, String> {
            let file = Tensors::parse(&bytes)?;
            let Header { report, rows, text_neighbours } =
                serde_json::from_str(file.header()?).map_err(|e| e.to_string())?;
            report.form.check()?;
            let weights = match report.form {
                Form::Dense => Weights::Dense(file.matrix("weights", items, Some(items))?),
                Form::Local { rank, .. } => {
                    let coarse = match rank {
                        0 => None,
                        _ => {
                            let vectors = file.matrix("coarse.vectors", items, None)?;
                            let rank = Some(vectors.ncols());
                            let weights = file.matrix("coarse.weights", items, rank)?;
                            Some(Coarse { vectors, weights })
                        }
                    };
                    Weights::Local { rows: file.sparse("weights", items)?, coarse }
                }
            };
            let neighbours = if report.neighbours > 0.0 {
                Some(Arc::new(file.sparse("neighbours", items)?))
            } else {
                None
            };
            let (l2, weight) = (report.l2, report.text);
            let leave = Leave { l2, weight, rows, text_neighbours, text: text.cloned() };
            let diagonal = file.f64("diagonal", items)?;
            let ease = Ease::new(weights, diagonal, train, report.form, leave, None);
            Ok(Self::new(ease, neighbours, train, report))
        };
        read().map_err(|e| Error::file(path, format!("not a readable linear model: {e}")))
    }
}
