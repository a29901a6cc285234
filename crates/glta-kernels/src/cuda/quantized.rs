//! A quantised weight on the device, in the order of [`super::fragments`].

use candle_core::{DType, Tensor};

use super::device::Cuda;
use super::fragments::fragments;
use super::kernels::{Bits, Kernel, ROWS, Source, TILE_ROWS, TILES};
use super::launch::{Arg, Launch};
use crate::error::{Error, Result};
use crate::panel::PANEL;
use crate::weights::{Matrix, Scales, Segment, Storage, Zeros};

/// Largest number of rows for which a product reads the packed words directly: on the tensor cores
/// for 16-bit activations, otherwise on the f32 units. For more rows the weight is dequantised.
pub(super) fn few_rows(dtype: DType) -> usize {
    match dtype {
        DType::F32 => ROWS[ROWS.len() - 1],
        _ => TILE_ROWS * TILES[TILES.len() - 1],
    }
}

/// Panels of a block of the product on the tensor cores, and stages that are in shared memory.
const PANELS: usize = 4;
const STAGES: usize = 3;
/// Blocks to aim for, on any device, so that the order of sums does not depend on it.
const BLOCKS: usize = 256;
/// Largest number that the kernels divide.
const MOST_SQUARES: usize = 1 << 15;

/// Most shared memory for a product that includes a norm.
const NORMED_SHARED: usize = 80 << 10;

/// RMSNorm of the rows before a product.
#[derive(Clone, Copy)]
pub(super) struct Normed<'a> {
    /// `(inputs,)` f32
    pub(super) weight: &'a Tensor,
    pub(super) eps: f32,
}

/// Weights `(outputs, inputs)` with concatenated outputs.
#[derive(Debug)]
pub(super) struct Quantized {
    cuda: Cuda,
    bits: Bits,
    pub(super) outputs: usize,
    /// Stored inputs, a multiple of 32.
    pub(super) inputs: usize,
    groups: usize,
    /// Number of stored inputs per group, in units of 32.
    group_blocks: usize,
    words: Tensor,
    scales: Tensor,
    zeros: Tensor,
}

impl Quantized {
    /// Uploads a packed matrix and loads the kernels for its width.
    pub(super) fn upload(matrix: &Matrix, cuda: &Cuda) -> Result<Self> {
        let Storage::Packed(p) = &matrix.storage else {
            return Err(Error::Input("expected a quantised matrix".into()));
        };
        let (bits, device) = (Bits::new(p.bits)?, &cuda.device);
        cuda.stream.load(Source::Quantized(bits))?;
        if cuda.dtype != DType::F32 {
            cuda.stream.load(Source::QuantizedMma(bits))?;
        }
        if matrix.k_stored / PANEL >= MOST_SQUARES {
            return Err(Error::Unsupported {
                what: format!("a weight with {} inputs on a CUDA device", matrix.k_stored),
                supported: "fewer than 1048576 inputs",
            });
        }
        let words = fragments(&p.words, bits);
        let scales = match &p.scales {
            Scales::F16(s) => {
                let halves: &[half::f16] = bytemuck::cast_slice(s);
                Tensor::from_slice(halves, halves.len(), device)?
            }
            Scales::F32(s) => Tensor::from_slice(s, s.len(), device)?,
        };
        let zeros = match &p.zeros {
            Zeros::Same(zero) => vec![*zero; scales.elem_count()],
            Zeros::Each(zeros) => zeros.to_vec(),
        };
        Ok(Self {
            cuda: cuda.clone(),
            bits,
            outputs: matrix.n,
            inputs: matrix.k_stored,
            groups: p.n_groups,
            group_blocks: group_blocks(&matrix.segments, p.n_groups)?,
            words: Tensor::from_slice(&words, words.len(), device)?,
            zeros: Tensor::from_vec(zeros, scales.elem_count(), device)?,
            scales,
        })
    }

    /// Appends the outputs of `other`, if one kernel can process both.
    pub(super) fn join(&mut self, other: &Self) -> Result<bool> {
        let sizes = |q: &Self| (q.bits, q.inputs, q.groups, q.group_blocks, q.scales.dtype());
        if sizes(self) != sizes(other) || !self.outputs.is_multiple_of(PANEL) {
            return Ok(false);
        }
        let cat = |a: &Tensor, b: &Tensor| Tensor::cat(&[a, b], 0);
        self.words = cat(&self.words, &other.words)?;
        self.scales = cat(&self.scales, &other.scales)?;
        self.zeros = cat(&self.zeros, &other.zeros)?;
        self.outputs += other.outputs;
        Ok(true)
    }

    /// Size on the device, in bytes.
    pub(super) fn resident_bytes(&self) -> usize {
        let bytes = |t: &Tensor| t.elem_count() * t.dtype().size_in_bytes();
        bytes(&self.words) + bytes(&self.scales) + bytes(&self.zeros)
    }

    fn weights(&self) -> [Arg<'_>; 3] {
        [&self.words, &self.scales, &self.zeros].map(Arg::In)
    }

    /// The scalar arguments of every kernel, for a result of `ld` columns; products have `rows`.
    fn scalars(&self, rows: Option<usize>, ld: usize, first: usize) -> Vec<Arg<'static>> {
        let f32_scales = usize::from(self.scales.dtype() == DType::F32);
        let sizes = [self.outputs, self.inputs, self.groups, self.group_blocks, ld, first];
        [f32_scales].into_iter().chain(rows).chain(sizes).map(Arg::U32).collect()
    }

    /// Writes the transposed weight into the columns from `first` on of `w: (inputs, ld)`. All
    /// parts of a fused layer together fill `w`.
    pub(super) fn dequantise(&self, w: &Tensor, first: usize) -> Result<()> {
        let (_, ld) = w.dims2()?;
        let args: Vec<Arg> = self
            .weights()
            .into_iter()
            .chain([self.result(w)?])
            .chain(self.scalars(None, ld, first))
            .collect();
        let shape = dequantise_launch(self.outputs, self.inputs);
        self.cuda.stream.launch(Kernel::Dequantise(self.bits), w.dtype(), shape, &args)
    }

    /// Writes `x Wᵀ + bias + residual` into the columns from `first` on of `y: (rows, ld)`, for 1
    /// to [`few_rows`] rows. `x: (rows, inputs)`, `bias: (ld,)` f32, `residual: (rows, ld)` f32.
    /// `y` is f32 with a residual, otherwise of the dtype of `x`.
    pub(super) fn product(
        &self,
        x: &Tensor,
        bias: Option<&Tensor>,
        residual: Option<&Tensor>,
        y: &Tensor,
        first: usize,
    ) -> Result<()> {
        let (rows, _) = y.dims2()?;
        if !self.fits_mma(rows, x.dtype()) {
            return self.product_f32(x, bias, residual, y, first);
        }
        self.product_mma(x, None, bias, residual, y, (first, 0))
    }

    fn product_f32(
        &self,
        x: &Tensor,
        bias: Option<&Tensor>,
        residual: Option<&Tensor>,
        y: &Tensor,
        first: usize,
    ) -> Result<()> {
        let (rows, ld) = y.dims2()?;
        let (block_rows, shape) = product_launch(self.bits, rows, self.outputs, self.inputs);
        let args: Vec<Arg> = self
            .operands(x, bias, residual)
            .into_iter()
            .chain([self.result(y)?])
            .chain(self.scalars(Some(rows), ld, first))
            .collect();
        self.cuda.stream.launch(Kernel::Product(self.bits, block_rows), x.dtype(), shape, &args)
    }

    /// Whether a kernel on the tensor cores processes `rows` rows of `dtype`.
    fn fits_mma(&self, rows: usize, dtype: DType) -> bool {
        let ordinary = rows == 1 && self.cuda.one_row_in_f32;
        dtype != DType::F32 && rows <= few_rows(dtype) && !ordinary
    }

    /// Whether a kernel returns `silu(gate) * up` for the halves `(gate, up)` of the product.
    pub(super) fn fits_gated(&self, rows: usize, dtype: DType) -> bool {
        self.fits_mma(rows, dtype) && self.outputs.is_multiple_of(2 * PANEL)
    }

    /// Whether a kernel computes the norm of the rows, too.
    pub(super) fn fits_normed(&self, rows: usize, dtype: DType) -> bool {
        let launch = mma_launch(self.bits, rows, self.outputs, self.inputs, true).1;
        dtype == DType::BF16
            && self.fits_mma(rows, dtype)
            && rows <= TILE_ROWS
            && launch.shared <= NORMED_SHARED
    }

    /// Returns `x Wᵀ + bias`, or [`Self::fits_gated`]'s `silu(gate) * up` of it, for `x: (rows,
    /// inputs)` or its norm ([`Self::fits_normed`]).
    pub(super) fn fused(
        &self,
        x: &Tensor,
        norm: Option<Normed>,
        bias: Option<&Tensor>,
        gated: bool,
    ) -> Result<Tensor> {
        let (rows, _) = x.dims2()?;
        let halves = if gated { 2 } else { 1 };
        let y = self.cuda.unwritten((rows, self.outputs / halves), self.cuda.dtype)?;
        let gated = if gated { self.outputs / (2 * PANEL) } else { 0 };
        self.product_mma(x, norm, bias, None, &y, (0, gated))?;
        Ok(y)
    }

    /// `gated` is the number of panels of a half, or 0.
    fn product_mma(
        &self,
        x: &Tensor,
        norm: Option<Normed>,
        bias: Option<&Tensor>,
        residual: Option<&Tensor>,
        y: &Tensor,
        (first, gated): (usize, usize),
    ) -> Result<()> {
        let (rows, ld) = y.dims2()?;
        let sizes = (self.outputs, self.inputs);
        let (tiles, mut shape) = mma_launch(self.bits, rows, sizes.0, sizes.1, norm.is_some());
        let counters = self.cuda.counters(shape.grid.0)?.filter(|_| shape.grid.1 > 1);
        if counters.is_none() {
            shape = mma_shape(self.bits, tiles, (shape.grid.0, 1), self.inputs, norm.is_some());
        }
        let parts = match &counters {
            Some(_) => {
                // Sums, and squares of the rows.
                let each = PANELS * PANEL * TILE_ROWS * tiles + TILE_ROWS;
                Some(self.cuda.unwritten(shape.grid.0 * shape.grid.1 * each, DType::F32)?)
            }
            None => None,
        };
        let [x, rest @ .., residual] = self.operands(x, bias, residual);
        let (kernel, scalars, residual) = match norm {
            None => (Kernel::ProductMma(self.bits, tiles), vec![x], Some(residual)),
            Some(Normed { weight, eps }) => {
                let scalars = vec![x, Arg::In(weight), Arg::F32(eps)];
                (Kernel::ProductNormed(self.bits), scalars, None)
            }
        };
        let args: Vec<Arg> = scalars
            .into_iter()
            .chain(rest)
            .chain(residual)
            .chain([
                if gated > 0 { Arg::Out(y) } else { self.result(y)? },
                parts.as_ref().map_or(Arg::Null, Arg::Out),
                counters.as_ref().map_or(Arg::Null, Arg::InOut),
            ])
            .chain(self.scalars(Some(rows), ld, first))
            .chain([Arg::U32(gated)])
            .collect();
        self.cuda.stream.launch(kernel, self.cuda.dtype, shape, &args)
    }

    fn operands<'a>(
        &'a self,
        x: &'a Tensor,
        bias: Option<&'a Tensor>,
        residual: Option<&'a Tensor>,
    ) -> [Arg<'a>; 6] {
        let [words, scales, zeros] = self.weights();
        [Arg::In(x), words, scales, zeros, Arg::optional(bias), Arg::optional(residual)]
    }

    /// The result; a single part does not write all of it.
    fn result<'a>(&self, y: &'a Tensor) -> Result<Arg<'a>> {
        Ok(if self.outputs == y.dim(1)? { Arg::Out(y) } else { Arg::InOut(y) })
    }
}

/// Length of a group in units of 32 stored inputs; the last group may be shorter.
fn group_blocks(segments: &[Segment], groups: usize) -> Result<usize> {
    let mut lengths = vec![0; groups];
    for segment in segments {
        if let Some(length) = lengths.get_mut(segment.group) {
            *length += segment.len / PANEL;
        }
    }
    match lengths.as_slice() {
        [first, .., last]
            if *first > 0 && last <= first && lengths[..groups - 1].iter().all(|l| l == first) =>
        {
            Ok(*first)
        }
        [only] if *only > 0 => Ok(*only),
        _ => Err(Error::Unsupported {
            what: "quantisation groups of different lengths".into(),
            supported: "on a CUDA device, groups of the same length",
        }),
    }
}

/// One warp per panel and square of 32 inputs.
fn dequantise_launch(outputs: usize, inputs: usize) -> Launch {
    let panels = outputs.div_ceil(PANEL);
    let warps = panels.min(8);
    Launch { grid: (panels.div_ceil(warps.max(1)), inputs / PANEL), threads: 32 * warps, shared: 0 }
}

/// The number of rows for which the kernel is compiled, and its launch: one block per panel, whose
/// warps divide the inputs.
fn product_launch(bits: Bits, rows: usize, outputs: usize, inputs: usize) -> (usize, Launch) {
    let block_rows = rows.next_power_of_two();
    let most = if block_rows <= 2 { 16 } else { 8 };
    // Inputs that a warp reads at a time.
    let step = PANEL * if bits == Bits::Three { 4 } else { 16 / bits.count() as usize };
    let warps = inputs.div_ceil(step).clamp(1, most);
    let launch = Launch {
        grid: (outputs.div_ceil(PANEL), 1),
        threads: 32 * warps,
        shared: warps * block_rows * PANEL * size_of::<f32>(),
    };
    (block_rows, launch)
}

/// The number of tiles of rows for which the kernel is compiled, and its launch: blocks of four
/// panels, and parts of the inputs.
fn mma_launch(
    bits: Bits,
    rows: usize,
    outputs: usize,
    inputs: usize,
    normed: bool,
) -> (usize, Launch) {
    let tiles = rows.div_ceil(TILE_ROWS).next_power_of_two();
    let blocks = outputs.div_ceil(PANELS * PANEL);
    // A part has at least four stages, and the sums of the parts are small next to the words.
    let chunks = inputs.div_ceil(squares(tiles) * PANEL);
    let most = chunks.div_ceil(4).min(if tiles <= 2 { 8 } else { 4 });
    let parts = BLOCKS.div_ceil(blocks.max(1)).min(most).max(1);
    (tiles, mma_shape(bits, tiles, (blocks, parts), inputs, normed))
}

fn mma_shape(
    bits: Bits,
    tiles: usize,
    grid: (usize, usize),
    inputs: usize,
    normed: bool,
) -> Launch {
    let squares = squares(tiles);
    // Activations of all stages; or of a whole part, with scratch.
    let chunks = inputs.div_ceil(squares * PANEL).div_ceil(grid.1);
    let (chunks, scratch) = match normed {
        true => (chunks, TILE_ROWS * (PANELS + 1) * size_of::<f32>()),
        false => (STAGES, 0),
    };
    let activations = TILE_ROWS * tiles * squares * PANEL * size_of::<u16>();
    // Words, f32 scales and zero points of a square.
    let square = (bits.count() as usize + 1) * 4 * PANEL + PANEL;
    let shared = chunks * activations + STAGES * PANELS * squares * square + scratch;
    Launch { grid, threads: 32 * PANELS, shared }
}

/// Squares of 32 inputs in a stage.
fn squares(tiles: usize) -> usize {
    if tiles <= 2 { 4 } else { 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launches_fit_the_kernels() {
        // LLaMA 7B: a query projection at batch 1, and a down projection at 16 rows.
        let (rows, launch) = product_launch(Bits::Four, 1, 4096, 4096);
        assert_eq!((rows, launch.grid, launch.threads, launch.shared), (1, (128, 1), 512, 2048));
        let (rows, launch) = product_launch(Bits::Four, 13, 4096, 11008);
        assert_eq!((rows, launch.grid, launch.threads), (16, (128, 1), 256));
        assert_eq!(launch.shared, 8 * 16 * 32 * 4);
        // Few inputs need only one warp.
        assert_eq!(product_launch(Bits::Four, 3, 8, 32).1.threads, 32);
        for bits in Bits::ALL {
            for inputs in [32, 64, 576, 1536, 4096, 11008] {
                for rows in 1..=few_rows(DType::F32) {
                    let (kernel, launch) = product_launch(bits, rows, 100, inputs);
                    assert!(kernel >= rows && kernel < 2 * rows && ROWS.contains(&kernel));
                    assert!(launch.threads <= if kernel <= 2 { 512 } else { 256 });
                    assert!(launch.shared <= 48 << 10);
                }
                for rows in 1..=few_rows(DType::BF16) {
                    let (tiles, launch) = mma_launch(bits, rows, 100, inputs, false);
                    assert!(8 * tiles >= rows && 4 * tiles < rows.max(5));
                    assert!(TILES.contains(&tiles));
                    assert!(launch.grid.1 * 4 <= inputs.div_ceil(64) + 3);
                    assert!(launch.shared <= if bits == Bits::Eight { 70_000 } else { 48 << 10 });
                }
            }
        }
        assert_eq!(dequantise_launch(11008, 4096).grid, (43, 128));
        // LLaMA 7B: output, gate and up, and down projections.
        let grid =
            |rows, outputs, inputs| mma_launch(Bits::Four, rows, outputs, inputs, false).1.grid;
        assert_eq!(grid(1, 4096, 4096), (32, 8));
        assert_eq!(grid(16, 22016, 4096), (172, 2));
        assert_eq!(grid(64, 4096, 11008), (32, 4));
    }

    #[test]
    fn groups_have_one_length() {
        let segment = |start, len, group| Segment { start, len, group };
        let even = [segment(0, 64, 0), segment(64, 64, 1), segment(128, 32, 2)];
        assert_eq!(group_blocks(&even, 3).unwrap(), 2);
        assert_eq!(group_blocks(&[segment(0, 256, 0), segment(256, 64, 0)], 1).unwrap(), 10);
        assert!(group_blocks(&[segment(0, 32, 0), segment(32, 64, 1)], 2).is_err());
        assert!(group_blocks(&[segment(0, 32, 0)], 2).is_ok_and(|blocks| blocks == 1));
    }
}
