//! Reads layers quantised by AWQ (layout `gemm`, 4 bits) and repacks them into the GPTQ layout.

use glta_kernels::{Arena, GptqTensors, Matrix, ScalesRef};
use safetensors::Dtype;

use crate::checkpoint::{Checkpoint, FLOATS, View};
use crate::config::QuantizeConfig;
use crate::error::Result;

/// Number of 4-bit fields in a 32-bit word.
const FIELDS: usize = 8;
/// Column of each field of a word, among the eight columns of the word.
const COLUMNS: [usize; FIELDS] = [0, 2, 4, 6, 1, 3, 5, 7];

/// Tensors of a layer, whose shapes have been checked.
pub(crate) struct Parts<'a> {
    qweight: View<'a>,
    qzeros: View<'a>,
    scales: View<'a>,
    group_size: usize,
    n_groups: usize,
}

impl<'a> Parts<'a> {
    /// Finds the tensors of the layer `prefix`, with `k` inputs and `n` outputs, and checks their
    /// shapes.
    pub(crate) fn find(
        checkpoint: &'a Checkpoint,
        prefix: &str,
        n: usize,
        k: usize,
        q: &QuantizeConfig,
    ) -> Result<Self> {
        let group_size = q.group_size.unwrap_or(k);
        let n_groups = k.div_ceil(group_size);
        let find = |part: &str| checkpoint.get(&format!("{prefix}.{part}"));
        let (qweight, qzeros, scales) = (find("qweight")?, find("qzeros")?, find("scales")?);
        if !n.is_multiple_of(FIELDS) || !k.is_multiple_of(FIELDS) {
            let problem = format!("{k} inputs and {n} outputs do not fill whole 32-bit words");
            return Err(qweight.error(problem));
        }
        qweight.expect(&[k, n / FIELDS], &[Dtype::I32])?;
        qzeros.expect(&[n_groups, n / FIELDS], &[Dtype::I32])?;
        scales.expect(&[n_groups, n], FLOATS)?;
        Ok(Self { qweight, qzeros, scales, group_size, n_groups })
    }
}

/// Reads and packs the layer `prefix` with `k` inputs and `n` outputs.
pub(crate) fn read(
    checkpoint: &Checkpoint,
    arena: &Arena,
    prefix: &str,
    n: usize,
    k: usize,
    q: &QuantizeConfig,
) -> Result<Matrix> {
    let Parts { qweight, qzeros, scales, group_size, n_groups } =
        Parts::find(checkpoint, prefix, n, k, q)?;
    let g_idx: Vec<u32> = (0..k).map(|row| (row / group_size) as u32).collect();
    // The fields of eight rows form one row of words.
    let mut weights = vec![0u32; k / FIELDS * n];
    for (row, words) in qweight.cast::<u32>().chunks_exact(n / FIELDS).enumerate() {
        let out = &mut weights[row / FIELDS * n..][..n];
        let shift = row % FIELDS * 4;
        for (word, columns) in words.iter().zip(out.chunks_exact_mut(FIELDS)) {
            for (field, column) in COLUMNS.into_iter().enumerate() {
                columns[column] |= (word >> (4 * field) & 15) << shift;
            }
        }
    }
    let in_order = |&word: &u32| {
        COLUMNS.into_iter().enumerate().fold(0, |ordered, (field, column)| {
            ordered | (word >> (4 * field) & 15) << (4 * column)
        })
    };
    let zeros: Vec<u32> = qzeros.cast::<u32>().iter().map(in_order).collect();
    let wide_scales = scales.to_f32()?;
    let f16_scales = (scales.dtype == Dtype::F16).then(|| scales.cast::<u16>());
    let tensors = GptqTensors {
        bits: 4,
        n,
        k,
        n_groups,
        qweight: &weights,
        qzeros: &zeros,
        v1: false,
        scales: match &f16_scales {
            Some(scales) => ScalesRef::F16(scales),
            None => ScalesRef::F32(&wide_scales),
        },
        g_idx: &g_idx,
    };
    let matrix = Matrix::quantized(arena, &tensors)?;
    checkpoint.release(qweight.name);
    Ok(matrix)
}
