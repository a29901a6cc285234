use bytemuck::Pod;
use rayon::prelude::*;

use super::buffer::{Arena, Buffer};
use super::matrix::{DenseData, Matrix, Storage, push_segments};
use crate::error::{Error, Result};
use crate::panel::PANEL;

/// Checks that there are `(n, k)` values of `size` bytes.
fn check(n: usize, k: usize, len: usize, size: usize) -> Result<()> {
    match n.checked_mul(k).and_then(|values| values.checked_mul(size)) {
        Some(expected) if expected == len => Ok(()),
        _ => Err(Error::Input(format!(
            "a weight of {n} outputs and {k} inputs does not have {} values",
            len / size
        ))),
    }
}

impl Matrix {
    /// Repacks a row-major `(n, k)` matrix of `n` outputs and `k` inputs.
    ///
    /// # Errors
    /// Returns an error if the number of elements is wrong, or if the allocation fails.
    pub fn dense_f32(arena: &Arena, n: usize, k: usize, row_major: &[f32]) -> Result<Self> {
        check(n, k, row_major.len(), 1)?;
        Ok(Self::dense(n, k, DenseData::F32(to_panels(arena, n, k, |i| row_major[i])?)))
    }

    /// Repacks the little-endian bytes of a row-major `(n, k)` f32 matrix.
    ///
    /// # Errors
    /// Returns an error if the number of bytes is wrong, or if the allocation fails.
    pub fn dense_f32_bytes(arena: &Arena, n: usize, k: usize, bytes: &[u8]) -> Result<Self> {
        check(n, k, bytes.len(), 4)?;
        let read = |i: usize| {
            f32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]])
        };
        Ok(Self::dense(n, k, DenseData::F32(to_panels(arena, n, k, read)?)))
    }

    /// Repacks the bytes of a row-major `(n, k)` f16 matrix without conversion.
    ///
    /// # Errors
    /// Returns an error if the number of bytes is wrong, or if the allocation fails.
    pub fn dense_f16_bytes(arena: &Arena, n: usize, k: usize, bytes: &[u8]) -> Result<Self> {
        check(n, k, bytes.len(), 2)?;
        Ok(Self::dense(n, k, DenseData::F16(half_panels(arena, n, k, bytes)?)))
    }

    /// Repacks the bytes of a row-major `(n, k)` bf16 matrix without conversion.
    ///
    /// # Errors
    /// Returns an error if the number of bytes is wrong, or if the allocation fails.
    pub fn dense_bf16_bytes(arena: &Arena, n: usize, k: usize, bytes: &[u8]) -> Result<Self> {
        check(n, k, bytes.len(), 2)?;
        Ok(Self::dense(n, k, DenseData::Bf16(half_panels(arena, n, k, bytes)?)))
    }

    fn dense(n: usize, k: usize, data: DenseData) -> Self {
        let mut segments = Vec::new();
        push_segments(&mut segments, 0, k, 0);
        Self { n, k, k_stored: k, gather: None, segments, storage: Storage::Dense(data) }
    }
}

fn half_panels(arena: &Arena, n: usize, k: usize, bytes: &[u8]) -> Result<Buffer<u16>> {
    to_panels(arena, n, k, |i| u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]))
}

/// Builds `[panel][k][32]`; columns beyond `n` are zero. `read` gets the index of a value in the
/// row-major `(n, k)` matrix.
fn to_panels<T: Pod + Send>(
    arena: &Arena,
    n: usize,
    k: usize,
    read: impl Fn(usize) -> T + Sync,
) -> Result<Buffer<T>> {
    let mut out = arena.zeroed::<T>(n.div_ceil(PANEL) * k * PANEL)?;
    out.par_chunks_mut((k * PANEL).max(1)).enumerate().for_each(|(p, panel)| {
        for col in 0..PANEL.min(n - p * PANEL) {
            for i in 0..k {
                panel[i * PANEL + col] = read((p * PANEL + col) * k + i);
            }
        }
    });
    Ok(out)
}
