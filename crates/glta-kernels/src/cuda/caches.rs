use std::marker::PhantomData;

use candle_core::Tensor;

use super::device::Cuda;
use super::keys::{KeyShape, Keys};
use crate::arguments::check_caches;
use crate::backend::Keys as _;
use crate::error::{Error, Result};
use crate::sequences::Sequences;

/// The caches of one pass's sequences, grown by the tokens of the pass. They are borrowed, because
/// their memory must not move while kernels use its address.
#[derive(Debug)]
pub struct Caches<'a> {
    /// Address of each sequence's cache and `capacity << 32 | keys`, as i64.
    pub(super) table: Tensor,
    /// The caches that the table has addresses of.
    pub(super) rows: Vec<Tensor>,
    /// Largest number of keys of a sequence, with those of the pass.
    pub(super) longest: usize,
    /// Whether every sequence has one token.
    pub(super) single: bool,
    /// Shape of every cache; `None` without caches.
    pub(super) shape: Option<KeyShape>,
    _keys: PhantomData<&'a mut Keys>,
}

impl<'a> Caches<'a> {
    pub(super) fn upload(
        cuda: &Cuda,
        sequences: &Sequences,
        keys: Vec<&'a mut Keys>,
    ) -> Result<Self> {
        Self::grow(cuda, sequences, keys, |values| {
            let len = values.len();
            Ok(Tensor::from_vec(values, len, &cuda.device)?)
        })
    }

    /// Grows the caches by the tokens of the pass; `upload` returns the tensor of the table.
    pub(super) fn grow(
        cuda: &Cuda,
        sequences: &Sequences,
        keys: Vec<&'a mut Keys>,
        upload: impl FnOnce(Vec<i64>) -> Result<Tensor>,
    ) -> Result<Self> {
        check_caches(keys.len(), sequences.len())?;
        let lengths = sequences.starts().windows(2).map(|w| w[1] - w[0]);
        let mut values = Vec::with_capacity(2 * keys.len());
        let mut single = true;
        let mut longest = 0;
        let mut caches = Vec::with_capacity(keys.len());
        let mut shape = None;
        for (keys, added) in keys.into_iter().zip(lengths) {
            let same = shape.get_or_insert_with(|| keys.shape());
            if *same != keys.shape() {
                return Err(Error::Input("the caches of a pass belong to different models".into()));
            }
            keys.grow(added)?;
            single &= added == 1;
            longest = longest.max(keys.len());
            let address = match keys.rows() {
                Some(rows) => {
                    caches.push(rows.clone());
                    cuda.stream.address(rows)?
                }
                None => 0,
            };
            // The bits of an address and of two sizes; the sign has no meaning.
            values.extend([address as i64, (keys.capacity() << 32 | keys.len()) as i64]);
        }
        let table = upload(values)?;
        Ok(Self { table, rows: caches, longest, single, shape, _keys: PhantomData })
    }
}
