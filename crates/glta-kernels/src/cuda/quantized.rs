//! A quantised weight on the device, packed as on the host ([`crate::weights::Matrix`]). The words
//! of a panel are contiguous; a warp reads 512 bytes at a time.

use std::sync::Arc;

use candle_core::{DType, Tensor};

use super::device::Cuda;
use super::driver::Driver;
use super::kernels::{Bits, Kernel, ROWS, Source};
use super::launch::{Arg, Launch};
use crate::error::{Error, Result};
use crate::panel::PANEL;
use crate::weights::{Matrix, Scales, Segment, Storage, Zeros};

/// Largest number of rows for which a product reads the packed words directly.
pub(super) const FEW_ROWS: usize = ROWS[ROWS.len() - 1];

/// Weights `(outputs, inputs)` with concatenated outputs.
#[derive(Debug)]
pub(super) struct Quantized {
    driver: Arc<dyn Driver>,
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
        cuda.driver.load(Source::Quantized(bits))?;
        let upload = |words: &[u32]| Tensor::from_slice(words, words.len(), device);
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
            driver: Arc::clone(&cuda.driver),
            bits,
            outputs: matrix.n,
            inputs: matrix.k_stored,
            groups: p.n_groups,
            group_blocks: group_blocks(&matrix.segments, p.n_groups)?,
            words: upload(&p.words)?,
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

    fn sizes<'a>(&self, ld: usize, first: usize) -> [Arg<'a>; 6] {
        [self.outputs, self.inputs, self.groups, self.group_blocks, ld, first].map(Arg::U32)
    }

    fn f32_scales<'a>(&self) -> Arg<'a> {
        Arg::U32(usize::from(self.scales.dtype() == DType::F32))
    }

    /// Writes the transposed weight into the columns from `first` on of `w: (inputs, ld)`. All
    /// parts of a fused layer together fill `w`.
    pub(super) fn dequantise(&self, w: &Tensor, first: usize) -> Result<()> {
        let (_, ld) = w.dims2()?;
        let weights = [Arg::In(&self.words), Arg::In(&self.scales), Arg::In(&self.zeros)];
        // A single part does not write all of `w`, so the rest must stay unchanged.
        let whole = self.outputs == ld;
        let to = if whole { Arg::Out(w) } else { Arg::InOut(w) };
        let args: Vec<Arg> = weights
            .into_iter()
            .chain([to, self.f32_scales()])
            .chain(self.sizes(ld, first))
            .collect();
        let shape = dequantise_launch(self.bits, self.outputs, self.inputs);
        self.driver.launch(Kernel::Dequantise(self.bits), w.dtype(), shape, &args)
    }

    /// Writes `x Wᵀ + bias + residual` into the columns from `first` on of `y: (rows, ld)`, for 1
    /// to [`FEW_ROWS`] rows. `x: (rows, inputs)`, `bias: (ld,)` f32, `residual: (rows, ld)` f32.
    /// `y` is f32 with a residual, otherwise of the dtype of `x`.
    pub(super) fn product(
        &self,
        x: &Tensor,
        bias: Option<&Tensor>,
        residual: Option<&Tensor>,
        y: &Tensor,
        first: usize,
    ) -> Result<()> {
        let (rows, ld) = y.dims2()?;
        let (block_rows, shape) = product_launch(self.bits, rows, self.outputs, self.inputs);
        let to = if self.outputs == ld { Arg::Out(y) } else { Arg::InOut(y) };
        let args: Vec<Arg> = [
            Arg::In(x),
            Arg::In(&self.words),
            Arg::In(&self.scales),
            Arg::In(&self.zeros),
            Arg::optional(bias),
            Arg::optional(residual),
            to,
            self.f32_scales(),
            Arg::U32(rows),
        ]
        .into_iter()
        .chain(self.sizes(ld, first))
        .collect();
        self.driver.launch(Kernel::Product(self.bits, block_rows), x.dtype(), shape, &args)
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

/// Inputs that a warp reads at a time.
fn step(bits: Bits) -> usize {
    match bits {
        Bits::Three => 32,
        bits => 4 * 32 / bits.count() as usize,
    }
}

/// One warp per panel and step of inputs.
fn dequantise_launch(bits: Bits, outputs: usize, inputs: usize) -> Launch {
    let panels = outputs.div_ceil(PANEL);
    let warps = panels.min(8);
    Launch {
        grid: (panels.div_ceil(warps.max(1)), inputs.div_ceil(step(bits))),
        threads: 32 * warps,
        shared: 0,
    }
}

/// The number of rows for which the kernel is compiled, and its launch: one block per panel, whose
/// warps divide the inputs.
fn product_launch(bits: Bits, rows: usize, outputs: usize, inputs: usize) -> (usize, Launch) {
    let block_rows = rows.next_power_of_two();
    let most = if block_rows <= 2 { 16 } else { 8 };
    let warps = inputs.div_ceil(step(bits)).div_ceil(4).clamp(1, most);
    let launch = Launch {
        grid: (outputs.div_ceil(PANEL), 1),
        threads: 32 * warps,
        shared: warps * block_rows * PANEL * size_of::<f32>(),
    };
    (block_rows, launch)
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
                for rows in 1..=FEW_ROWS {
                    let (kernel, launch) = product_launch(bits, rows, 100, inputs);
                    assert!(kernel >= rows && kernel < 2 * rows && ROWS.contains(&kernel));
                    assert!(launch.threads <= if kernel <= 2 { 512 } else { 256 });
                    assert!(launch.shared <= 48 << 10);
                }
                let launch = dequantise_launch(bits, 40 * 32, inputs);
                assert_eq!(launch.grid.0, 5);
                assert!(launch.grid.1 * step(bits) >= inputs);
                assert!((launch.grid.1 - 1) * step(bits) < inputs);
            }
        }
        assert_eq!(dequantise_launch(Bits::Four, 11008, 4096).grid, (43, 128));
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
