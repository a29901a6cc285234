use std::sync::Arc;

use bytemuck::Pod;
use rayon::prelude::*;

use super::buffer::{Arena, Buffer};
use super::matrix::{Matrix, Packed, Scales, Storage, Zeros, push_segments};
use crate::error::{Error, Result};
use crate::panel::PANEL;

/// The tensors of one quantised linear layer, in the layout of the file.
#[derive(Clone, Copy, Debug)]
pub struct GptqTensors<'a> {
    /// Number of bits per weight: 2, 3, 4 or 8.
    pub bits: u32,
    /// Number of outputs.
    pub n: usize,
    /// Number of inputs.
    pub k: usize,
    /// Number of quantisation groups.
    pub n_groups: usize,
    /// Quantised weights, `(k * bits / 32, n)`, packed along the inputs.
    pub qweight: &'a [u32],
    /// Zero points, `(n_groups, n * bits / 32)`, packed along the outputs.
    pub qzeros: &'a [u32],
    /// Whether stored zero points are one too small: `true` for `checkpoint_format` "gptq", `false`
    /// for "gptq_v2".
    pub v1: bool,
    /// Scales, `(n_groups, n)`.
    pub scales: ScalesRef<'a>,
    /// Group of each input, `(k,)`.
    pub g_idx: &'a [u32],
}

/// Scales in the type of the file.
#[derive(Clone, Copy, Debug)]
pub enum ScalesRef<'a> {
    /// Bits of f16 scales.
    F16(&'a [u16]),
    /// f32 scales.
    F32(&'a [f32]),
}

impl GptqTensors<'_> {
    /// Checks that the sizes of the tensors match.
    fn validate(&self) -> Result<()> {
        let bits = self.bits as usize;
        if ![2, 3, 4, 8].contains(&bits) {
            return Err(Error::Unsupported {
                what: format!("weights of {bits} bits"),
                supported: "2, 3, 4 and 8",
            });
        }
        if self.g_idx.len() != self.k {
            return Err(Error::Input(format!(
                "g_idx has {} elements, not {}",
                self.g_idx.len(),
                self.k
            )));
        }
        let product = |a: usize, b: usize| {
            let large = || Error::Input(format!("a weight of {a} x {b} elements is too large"));
            a.checked_mul(b).ok_or_else(large)
        };
        let (input_bits, output_bits) = (product(self.k, bits)?, product(self.n, bits)?);
        if !input_bits.is_multiple_of(32) || !output_bits.is_multiple_of(32) {
            return Err(Error::Input(format!(
                "{} inputs and {} outputs of {bits} bits do not fill whole 32-bit words",
                self.k, self.n
            )));
        }
        let scales = match self.scales {
            ScalesRef::F16(scales) => scales.len(),
            ScalesRef::F32(scales) => scales.len(),
        };
        for (name, len, expected) in [
            ("qweight", self.qweight.len(), product(input_bits / 32, self.n)?),
            ("qzeros", self.qzeros.len(), product(self.n_groups, output_bits / 32)?),
            ("scales", scales, product(self.n_groups, self.n)?),
        ] {
            if len != expected {
                return Err(Error::Input(format!("{name} has {len} elements, not {expected}")));
            }
        }
        match self.g_idx.iter().find(|&&group| group as usize >= self.n_groups) {
            Some(group) => {
                let groups = self.n_groups;
                Err(Error::Input(format!("g_idx names group {group} of {groups}")))
            }
            None => Ok(()),
        }
    }
}

/// Reads `count` fields of `bits` bits from a little-endian bit stream of words that are `stride`
/// apart.
pub(crate) fn unpack_fields(
    words: impl Fn(usize) -> u32,
    bits: u32,
    count: usize,
) -> impl Iterator<Item = u8> {
    let mask = (1u64 << bits) - 1;
    (0..count).map(move |j| {
        let bit = j * bits as usize;
        let (word, offset) = (bit / 32, bit % 32);
        let mut value = u64::from(words(word)) >> offset;
        if offset + bits as usize > 32 {
            value |= u64::from(words(word + 1)) << (32 - offset);
        }
        (value & mask) as u8
    })
}

/// Returns the zero points of one group, `(n,)`, from a packed row.
///
/// Version 1 stores `zero - 1`. For 2, 4 and 8 bits it was subtracted from whole words, so a zero
/// point of 0 borrows from its neighbour, and the exact inverse is a wrapping addition to the word.
/// With 3 bits, one was subtracted from each field, modulo 8.
pub(crate) fn unpack_zeros(row: &[u32], bits: u32, n: usize, v1: bool) -> Vec<u8> {
    let one_each: u32 = match (v1, bits) {
        (true, 2) => 0x5555_5555,
        (true, 4) => 0x1111_1111,
        (true, 8) => 0x0101_0101,
        _ => 0,
    };
    let add = u8::from(v1 && bits == 3);
    unpack_fields(|w| row[w].wrapping_add(one_each), bits, n)
        .map(|z| if bits == 3 { (z + add) & 7 } else { z })
        .collect()
}

impl Matrix {
    /// Repacks a quantised layer: inputs sorted by group, groups padded to multiples of 32, outputs
    /// in panels. The values stay packed.
    ///
    /// # Errors
    /// Returns an error if the tensors do not match each other, or if the allocation fails.
    pub fn quantized(arena: &Arena, t: &GptqTensors) -> Result<Self> {
        t.validate()?;
        let bits = t.bits as usize;
        // A stable order keeps the identity.
        let mut members = vec![Vec::new(); t.n_groups];
        for (row, &group) in t.g_idx.iter().enumerate() {
            members[group as usize].push(row as u32);
        }
        let mut order: Vec<u32> = Vec::with_capacity(t.k);
        let mut segments = Vec::new();
        for (group, rows) in members.iter().enumerate() {
            let start = order.len();
            order.extend(rows);
            order.resize(order.len().next_multiple_of(PANEL), Matrix::PADDING);
            push_segments(&mut segments, start, order.len() - start, group);
        }
        let k_stored = order.len();
        let identity = k_stored == t.k && order.iter().enumerate().all(|(i, &r)| i as u32 == r);

        let panels = t.n.div_ceil(PANEL);
        let blocks = k_stored / PANEL;
        let panel_words = blocks * bits * PANEL;
        let mut words = arena.zeroed::<u32>(panels * panel_words)?;
        words.par_chunks_mut(panel_words.max(1)).enumerate().for_each(|(p, panel)| {
            let cols = PANEL.min(t.n - p * PANEL);
            for (b, block) in panel.chunks_exact_mut(bits * PANEL).enumerate() {
                if identity {
                    for w in 0..bits {
                        let from = (b * bits + w) * t.n + p * PANEL;
                        block[w * PANEL..w * PANEL + cols]
                            .copy_from_slice(&t.qweight[from..from + cols]);
                    }
                } else {
                    repack_block(t, &order[b * PANEL..(b + 1) * PANEL], p * PANEL, cols, block);
                }
            }
        });

        let zero_words = (t.n * bits / 32).max(1);
        let rows: Vec<Vec<u8>> = t
            .qzeros
            .chunks_exact(zero_words)
            .map(|row| unpack_zeros(row, t.bits, t.n, t.v1))
            .collect();
        let first = rows.first().and_then(|row| row.first()).copied().unwrap_or(0);
        let zeros = if rows.iter().flatten().all(|&z| z == first) {
            Zeros::Same(first)
        } else {
            Zeros::Each(group_panels(arena, t.n, t.n_groups, |g, n| rows[g][n])?)
        };
        let scales = match t.scales {
            ScalesRef::F16(s) => {
                Scales::F16(group_panels(arena, t.n, t.n_groups, |g, n| s[g * t.n + n])?)
            }
            ScalesRef::F32(s) => {
                Scales::F32(group_panels(arena, t.n, t.n_groups, |g, n| s[g * t.n + n])?)
            }
        };
        Ok(Self {
            n: t.n,
            k: t.k,
            k_stored,
            gather: (!identity).then(|| Arc::new(order)),
            segments,
            storage: Storage::Packed(Packed {
                bits: t.bits,
                n_groups: t.n_groups,
                panel_words,
                words,
                scales,
                zeros,
            }),
        })
    }
}

/// Collects 32 stored rows of `cols` columns, field by field.
fn repack_block(t: &GptqTensors, rows: &[u32], first_col: usize, cols: usize, block: &mut [u32]) {
    let bits = t.bits as usize;
    let mask = (1u64 << bits) - 1;
    for (j, &row) in rows.iter().enumerate() {
        if row == Matrix::PADDING {
            continue;
        }
        let bit = row as usize * bits;
        let (from_word, from_shift) = (bit / 32, bit % 32);
        let (to_word, to_shift) = (j * bits / 32, j * bits % 32);
        for col in 0..cols {
            let at = from_word * t.n + first_col + col;
            let mut value = u64::from(t.qweight[at]) >> from_shift;
            if from_shift + bits > 32 {
                value |= u64::from(t.qweight[at + t.n]) << (32 - from_shift);
            }
            let value = (value & mask) << to_shift;
            block[to_word * PANEL + col] |= value as u32;
            if to_shift + bits > 32 {
                block[(to_word + 1) * PANEL + col] |= (value >> 32) as u32;
            }
        }
    }
}

/// Builds `[panel][group][32]` from a value for each group and output.
fn group_panels<T: Pod>(
    arena: &Arena,
    n: usize,
    n_groups: usize,
    value: impl Fn(usize, usize) -> T,
) -> Result<Buffer<T>> {
    let mut out = arena.zeroed::<T>(n.div_ceil(PANEL) * n_groups * PANEL)?;
    for g in 0..n_groups {
        for col in 0..n {
            out[(col / PANEL * n_groups + g) * PANEL + col % PANEL] = value(g, col);
        }
    }
    Ok(out)
}
