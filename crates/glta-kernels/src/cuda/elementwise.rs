//! Norms, rotary embedding, SwiGLU, and moves of rows and columns. All tensors are `(rows, width)`.

use candle_core::{DType, Tensor};

use super::device::Cuda;
use super::kernels::Kernel;
use super::launch::{Arg, Launch, expect_f32};
use super::stream::Stream;
use crate::error::Result;

/// Threads of a block that processes a row of `width`: about one per four elements.
fn row_threads(width: usize) -> usize {
    width.div_ceil(4).next_multiple_of(32).clamp(32, 1024)
}

/// As [`row_threads`], with shared memory to sum `sums` numbers over the block.
fn reduction(rows: usize, width: usize, sums: usize) -> Launch {
    Launch { shared: sums * 32 * size_of::<f32>(), ..Launch::rows(rows, row_threads(width)) }
}

/// Returns `x / rms(x) * w` of an f32 input, in `dtype`.
pub(super) fn rms_norm(
    on: &Stream,
    x: &Tensor,
    weight: &Tensor,
    eps: f32,
    dtype: DType,
) -> Result<Tensor> {
    expect_f32("the input of a norm", Some(x))?;
    let (rows, width) = x.dims2()?;
    let y = on.unwritten((rows, width), dtype, x.device())?;
    let args = [Arg::In(x), Arg::In(weight), Arg::Out(&y), Arg::U32(width), Arg::F32(eps)];
    on.launch(Kernel::RmsNorm, dtype, reduction(rows, width, 1), &args)?;
    Ok(y)
}

/// Returns `residual + dL/dx` for the gradient `dy`, in f32 as `x` and `residual`.
pub(super) fn rms_norm_backward(
    on: &Stream,
    x: &Tensor,
    weight: &Tensor,
    eps: f32,
    dy: &Tensor,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    expect_f32("the input of a norm", Some(x))?;
    expect_f32("the gradient beside a norm", residual)?;
    let (rows, width) = x.dims2()?;
    let dx = on.unwritten((rows, width), DType::F32, x.device())?;
    let args = [
        Arg::In(x),
        Arg::In(weight),
        Arg::In(dy),
        Arg::optional(residual),
        Arg::Out(&dx),
        Arg::U32(width),
        Arg::F32(eps),
    ];
    on.launch(Kernel::RmsNormBackward, dy.dtype(), reduction(rows, width, 2), &args)?;
    Ok(dx)
}

/// Rotates the first `heads` heads of every row in place; `inverse` rotates backwards. `cos` and
/// `sin` are `(positions, dim / 2)`.
pub(super) fn rope(
    on: &Stream,
    x: &Tensor,
    positions: &Tensor,
    (cos, sin): (&Tensor, &Tensor),
    heads: usize,
    dim: usize,
    inverse: bool,
) -> Result<()> {
    let (rows, stride) = x.dims2()?;
    let args = [
        Arg::InOut(x),
        Arg::In(positions),
        Arg::In(cos),
        Arg::In(sin),
        Arg::U32(stride),
        Arg::U32(heads),
        Arg::U32(dim),
        Arg::F32(if inverse { -1.0 } else { 1.0 }),
    ];
    let shape = Launch::rows(rows, row_threads(heads * dim / 2));
    on.launch(Kernel::Rope, x.dtype(), shape, &args)
}

/// `silu(gate) * up` of `(rows, 2 * width)`.
pub(super) fn swiglu(on: &Stream, gate_up: &Tensor) -> Result<Tensor> {
    let (rows, width) = gate_up.dims2()?;
    let width = width / 2;
    let h = on.unwritten((rows, width), gate_up.dtype(), gate_up.device())?;
    let args = [Arg::In(gate_up), Arg::Out(&h), Arg::U32(width)];
    let shape = Launch::fours(rows, width);
    on.launch(Kernel::Swiglu, gate_up.dtype(), shape, &args)?;
    Ok(h)
}

/// Gradient of `gate_up` for `dh: (rows, width)`.
pub(super) fn swiglu_backward(on: &Stream, gate_up: &Tensor, dh: &Tensor) -> Result<Tensor> {
    let (rows, width) = dh.dims2()?;
    let d = on.unwritten((rows, 2 * width), dh.dtype(), dh.device())?;
    let args = [Arg::In(gate_up), Arg::In(dh), Arg::Out(&d), Arg::U32(width)];
    let shape = Launch::fours(rows, width);
    on.launch(Kernel::SwigluBackward, dh.dtype(), shape, &args)?;
    Ok(d)
}

/// Adds `bias: (width,)` f32 and `other`, of the dtype of `y`, to `y` in place.
pub(super) fn add(
    on: &Stream,
    y: &Tensor,
    bias: Option<&Tensor>,
    other: Option<&Tensor>,
) -> Result<()> {
    if bias.is_none() && other.is_none() {
        return Ok(());
    }
    let (rows, width) = y.dims2()?;
    let args = [Arg::InOut(y), Arg::optional(bias), Arg::optional(other), Arg::U32(width)];
    on.launch(Kernel::Add, y.dtype(), Launch::fours(rows, width), &args)
}

/// The rows `index: (n,)` u32 of `x` in f32, zero where the index is [`u32::MAX`].
pub(super) fn gather_rows(on: &Stream, x: &Tensor, index: &Tensor) -> Result<Tensor> {
    let (_, width) = x.dims2()?;
    let rows = index.dims1()?;
    let y = on.unwritten((rows, width), DType::F32, x.device())?;
    let args = [Arg::In(x), Arg::In(index), Arg::Out(&y), Arg::U32(width)];
    let shape = Launch::rows(rows, row_threads(width));
    on.launch(Kernel::GatherRows, x.dtype(), shape, &args)?;
    Ok(y)
}

/// The columns `index: (n,)` u32 of `x`, zero where the index is [`u32::MAX`].
pub(super) fn gather_columns(on: &Stream, x: &Tensor, index: &Tensor) -> Result<Tensor> {
    let (rows, width) = x.dims2()?;
    let columns = index.dims1()?;
    let y = on.unwritten((rows, columns), x.dtype(), x.device())?;
    let args = [Arg::In(x), Arg::In(index), Arg::Out(&y), Arg::U32(width), Arg::U32(columns)];
    let shape = Launch::rows(rows, row_threads(columns));
    on.launch(Kernel::GatherColumns, x.dtype(), shape, &args)?;
    Ok(y)
}

/// Adds row `i` of `dy: (n, width)` f32 to row `index[i]` of zeros `(rows, width)`, for `i` in
/// ascending order; rows with the index [`u32::MAX`] are left out.
pub(super) fn index_add(cuda: &Cuda, dy: &Tensor, index: &[u32], rows: usize) -> Result<Tensor> {
    expect_f32("the rows to be added", Some(dy))?;
    let (_, width) = dy.dims2()?;
    let dx = cuda.unwritten((rows, width), DType::F32)?;
    let (starts, order) = sorted(index, rows);
    let (starts, order) = (cuda.table(starts)?, cuda.table(order)?);
    let args = [Arg::In(dy), Arg::In(&starts), Arg::In(&order), Arg::Out(&dx), Arg::U32(width)];
    cuda.stream.launch(Kernel::IndexAdd, DType::F32, Launch::fours(rows, width), &args)?;
    Ok(dx)
}

/// The positions of each value below `rows` in `index`, ascending: the first of each value, and the
/// number of positions; then the positions.
fn sorted(index: &[u32], rows: usize) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0; rows + 1];
    for &row in index {
        if let Some(count) = starts[1..].get_mut(row as usize) {
            *count += 1;
        }
    }
    for row in 0..rows {
        starts[row + 1] += starts[row];
    }
    let mut next = starts.clone();
    // At least one, because an empty tensor has no address.
    let mut order = vec![0; starts[rows].max(1) as usize];
    for (position, &row) in (0..).zip(index) {
        if (row as usize) < rows {
            order[next[row as usize] as usize] = position;
            next[row as usize] += 1;
        }
    }
    (starts, order)
}

/// Writes the token with the highest of `scores: (texts, vocab)` f32 to `ids: (texts,)` u32, the
/// lowest id among equals, and moves each text to its next step in `positions: (texts,)` u32 and
/// the table of caches.
pub(super) fn next_tokens(
    on: &Stream,
    scores: &Tensor,
    ids: &Tensor,
    positions: &Tensor,
    table: &Tensor,
) -> Result<()> {
    expect_f32("the scores of tokens", Some(scores))?;
    let (texts, vocab) = scores.dims2()?;
    let args =
        [Arg::In(scores), Arg::Out(ids), Arg::InOut(positions), Arg::InOut(table), Arg::U32(vocab)];
    let threads = row_threads(vocab);
    let launch = Launch { shared: threads / 32 * 8, ..Launch::rows(texts, threads) };
    on.launch(Kernel::NextTokens, DType::F32, launch, &args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_sorted_by_row() {
        let (starts, order) = sorted(&[2, 0, u32::MAX, 2, 3, 2], 4);
        assert_eq!((starts, order), (vec![0, 1, 1, 4, 5], vec![1, 0, 3, 5, 4]));
    }

    #[test]
    fn launches_fit_the_kernels() {
        for width in [1, 31, 32, 129, 576, 4096, 11008, 100_000] {
            let threads = row_threads(width);
            assert!(threads.is_multiple_of(32) && (32..=1024).contains(&threads), "{width}");
            assert!(threads * 4 + 128 > width || threads == 1024, "{width}");
        }
        let launch = reduction(7, 4096, 2);
        assert_eq!((launch.grid, launch.threads, launch.shared), ((7, 1), 1024, 256));
        assert_eq!(Launch::fours(3, 1025).grid, (3, 2));
        assert_eq!(Launch::fours(3, 1024).grid, (3, 1));
        assert_eq!(Launch::fours(3, 8).threads, 32);
    }
}
