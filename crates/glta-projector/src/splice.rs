use candle_core::Tensor;

use crate::{Error, Result};

/// One part of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Ordinary tokens, as vocabulary ids.
    Tokens(Vec<u32>),
    /// Index of a soft token: a row of the tensor passed to [`splice`].
    Soft(u32),
}

/// A batch of prompts as input embeddings.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SoftBatch {
    /// Input embeddings, `(batch, seq, hidden)`; rows are padded with zeros on the right.
    pub embeds: Tensor,
    /// Number of tokens of each row, without padding.
    pub lengths: Vec<usize>,
}

/// Builds the input embeddings of prompts with ordinary and soft tokens.
///
/// `soft` is `(m, hidden)`. `embed` returns the embeddings of ordinary tokens, `(len, hidden)`. The
/// result is differentiable with respect to `soft`.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use glta_projector::{Piece, splice};
///
/// let soft = Tensor::ones((1, 8), DType::F32, &Device::Cpu)?;
/// let table = Tensor::zeros((100, 8), DType::F32, &Device::Cpu)?;
/// let embed = |ids: &[u32]| table.index_select(&Tensor::new(ids, &Device::Cpu)?, 0);
/// let rows = [vec![Piece::Tokens(vec![1, 2]), Piece::Soft(0)], vec![Piece::Soft(0)]];
/// let batch = splice(&rows, &soft, embed)?;
/// assert_eq!((batch.embeds.dims(), &batch.lengths[..]), (&[2, 3, 8][..], &[3, 1][..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Returns an error for an empty batch or row, or for an index outside `soft`.
pub fn splice<E>(
    rows: &[Vec<Piece>],
    soft: &Tensor,
    embed: impl FnOnce(&[u32]) -> std::result::Result<Tensor, E>,
) -> Result<SoftBatch>
where
    Error: From<E>,
{
    splice_with::<E, candle_core::Error>(rows, soft, embed, gather)
}

/// The rows with these indices, with zeros for [`u32::MAX`].
fn gather(bank: &Tensor, index: &[u32]) -> candle_core::Result<Tensor> {
    let padding = bank.dim(0)? as u32;
    let zero = Tensor::zeros((1, bank.dim(1)?), bank.dtype(), bank.device())?;
    let index: Vec<u32> = index.iter().map(|&row| row.min(padding)).collect();
    let index = Tensor::new(index, bank.device())?;
    Tensor::cat(&[bank, &zero], 0)?.index_select(&index, 0)
}

/// [`splice`] with another differentiable operation to gather rows. `gather` returns the rows with
/// the given indices of a tensor, with zeros for [`u32::MAX`].
///
/// # Errors
/// Returns the errors of [`splice`] and of `gather`.
pub fn splice_with<E, G>(
    rows: &[Vec<Piece>],
    soft: &Tensor,
    embed: impl FnOnce(&[u32]) -> std::result::Result<Tensor, E>,
    gather: impl FnOnce(&Tensor, &[u32]) -> std::result::Result<Tensor, G>,
) -> Result<SoftBatch>
where
    Error: From<E> + From<G>,
{
    if rows.is_empty() {
        return Err(Error::EmptyBatch);
    }
    let (n_soft, hidden) = soft.dims2()?;
    let lengths: Vec<usize> = rows
        .iter()
        .map(|row| {
            row.iter()
                .map(|piece| match piece {
                    Piece::Tokens(ids) => ids.len(),
                    Piece::Soft(_) => 1,
                })
                .sum()
        })
        .collect();
    if let Some(row) = lengths.iter().position(|&len| len == 0) {
        return Err(Error::EmptyPrompt { row });
    }
    let seq = lengths.iter().copied().max().unwrap_or(0);

    // The table contains all vectors: soft tokens, and each distinct ordinary token once. One
    // gather from the table gives the batch.
    let first = n_soft as u32;
    let mut ids: Vec<u32> = rows
        .iter()
        .flatten()
        .filter_map(|piece| match piece {
            Piece::Tokens(ids) => Some(ids.as_slice()),
            Piece::Soft(_) => None,
        })
        .flatten()
        .copied()
        .collect();
    ids.sort_unstable();
    ids.dedup();
    let mut index = Vec::with_capacity(rows.len() * seq);
    for (r, row) in rows.iter().enumerate() {
        for piece in row {
            match piece {
                Piece::Soft(i) if (*i as usize) < n_soft => index.push(*i),
                Piece::Soft(i) => {
                    return Err(Error::SoftIndex { row: r, index: *i, len: n_soft });
                }
                Piece::Tokens(tokens) => index
                    .extend(tokens.iter().map(|t| first + ids.partition_point(|id| id < t) as u32)),
            }
        }
        index.resize((r + 1) * seq, u32::MAX);
    }
    let bank = if ids.is_empty() {
        soft.clone()
    } else {
        Tensor::cat(&[soft, &embed(&ids)?.to_dtype(soft.dtype())?], 0)?
    };
    let embeds = gather(&bank, &index)?.reshape((rows.len(), seq, hidden))?;
    Ok(SoftBatch { embeds, lengths })
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn embed(ids: &[u32]) -> candle_core::Result<Tensor> {
        let values: Vec<f32> = ids.iter().flat_map(|&id| [id as f32, 10.0 * id as f32]).collect();
        Tensor::from_vec(values, (ids.len(), 2), &Device::Cpu)
    }

    #[test]
    fn interleaves_and_pads() {
        let soft = Tensor::new(&[[-1f32, -1.0], [-2.0, -2.0]], &Device::Cpu).unwrap();
        let rows = [
            vec![Piece::Tokens(vec![5, 3]), Piece::Soft(1), Piece::Tokens(vec![5])],
            vec![Piece::Soft(0)],
        ];
        let batch = splice(&rows, &soft, embed).unwrap();
        assert_eq!(batch.lengths, [4, 1]);
        assert_eq!(
            batch.embeds.to_vec3::<f32>().unwrap(),
            [
                [[5.0, 50.0], [3.0, 30.0], [-2.0, -2.0], [5.0, 50.0]],
                [[-1.0, -1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
            ]
        );
    }

    #[test]
    fn gradient_reaches_every_use_of_a_soft_token() {
        let soft = Var::new(&[[1f32, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap();
        let rows =
            [vec![Piece::Soft(0), Piece::Soft(0), Piece::Tokens(vec![1])], vec![Piece::Soft(1)]];
        let batch = splice(&rows, soft.as_tensor(), embed).unwrap();
        let grads = batch.embeds.sum_all().unwrap().backward().unwrap();
        let grad = grads.get(&soft).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(grad, [[2.0, 2.0], [1.0, 1.0]]);
    }

    #[test]
    fn rejects_invalid_prompts() {
        let soft = Tensor::zeros((1, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        let bad = splice(&[vec![Piece::Soft(1)]], &soft, embed).unwrap_err();
        assert!(matches!(bad, Error::SoftIndex { row: 0, index: 1, len: 1 }));
        let bad = splice(&[vec![Piece::Soft(0)], vec![]], &soft, embed).unwrap_err();
        assert!(matches!(bad, Error::EmptyPrompt { row: 1 }));
        assert!(matches!(splice(&[], &soft, embed).unwrap_err(), Error::EmptyBatch));
    }
}
