//! Causal attention over packed sequences, its derivative, and key-value caches.

use candle_core::{DType, Tensor};

use super::caches::Caches;
use super::device::Cuda;
use super::elementwise;
use super::kernels::{COLUMNS, Kernel, Pass, Units};
use super::keys::Keys;
use super::launch::{Arg, Launch};
use super::rotary::Rotary;
use super::tokens::{MATRIX_TILE, TILE, Tokens};
use crate::backend::Keys as _;
use crate::error::{Error, Result};
use crate::heads::Heads;

/// Threads per block of the tiled kernels.
const THREADS: usize = 128;
const DECODE_THREADS: usize = 256;
/// Keys of a block that decodes.
const PIECE: usize = 256;

/// Keys and values of a layer in addition to its own projection.
#[derive(Clone, Copy)]
pub(super) struct KeySource<'a> {
    pub(super) layer: usize,
    /// A block of keys that precedes every sequence.
    pub(super) shared: Option<&'a Keys>,
}

/// Values that the derivative of attention needs.
#[derive(Debug)]
pub struct Attended {
    /// `(tokens, queries * dim)`
    out: Tensor,
    /// Logarithm of each softmax denominator, `(tokens, queries)` f32.
    lse: Tensor,
}

/// Checks that the kernels support heads of this shape.
pub(super) fn check(heads: Heads) -> Result<()> {
    if let Some(window) = heads.window {
        return Err(Error::Unsupported {
            what: format!("an attention window of {window} tokens on a CUDA device"),
            supported: "attention to all tokens",
        });
    }
    if heads.dim.is_multiple_of(4) && heads.dim <= 128 {
        return Ok(());
    }
    Err(Error::Unsupported {
        what: format!("head_dim {} on a CUDA device", heads.dim),
        supported: "multiples of 4 up to 128",
    })
}

/// Rotates queries and keys of `qkv` in place; `inverse` rotates backwards.
pub(super) fn rotate(
    cuda: &Cuda,
    qkv: &Tensor,
    heads: Heads,
    tokens: &Tokens,
    inverse: bool,
) -> Result<()> {
    let Rotary { cos, sin, .. } = &*tokens.rotary;
    let rotated = heads.queries + heads.keys;
    let positions = &tokens.positions;
    elementwise::rope(&cuda.stream, qkv, positions, (cos, sin), rotated, heads.dim, inverse)
}

impl Units {
    fn of(heads: Heads, dtype: DType) -> Self {
        if dtype.size_in_bytes() == 2 && heads.dim.is_multiple_of(8) {
            Self::TensorCores
        } else {
            Self::Ordinary
        }
    }
}

impl Pass {
    /// Bytes of shared memory.
    fn shared(self, units: Units, columns: usize) -> usize {
        if units == Units::TensorCores {
            // Tiles of 16-bit values: the block's own rows, and the rows of the other side.
            let rows = match self {
                Self::Forward => 3 * MATRIX_TILE,
                Self::Queries | Self::Keys if columns <= 64 => 4 * MATRIX_TILE,
                Self::Queries | Self::Keys => 3 * MATRIX_TILE,
            };
            return rows * columns * size_of::<u16>();
        }
        // Tiles of rows and of scores.
        let (rows, scores) = match self {
            Self::Forward => (2, 1),
            Self::Queries => (4, 1),
            Self::Keys => (4, 2),
        };
        (rows * TILE * (columns + 4) + scores * TILE * (TILE + 4)) * size_of::<f32>()
    }

    fn launch(
        self,
        cuda: &Cuda,
        heads: Heads,
        dtype: DType,
        tokens: &Tokens,
        args: &[Arg],
    ) -> Result<()> {
        let units = Units::of(heads, dtype);
        let [few, many] = COLUMNS;
        let columns = if heads.dim <= few { few } else { many };
        let blocks = match self {
            Self::Forward | Self::Queries => heads.queries,
            Self::Keys => heads.keys,
        };
        let shape = Launch {
            grid: (tiles(tokens, units).elem_count() / 2, blocks),
            threads: THREADS,
            shared: self.shared(units, columns),
        };
        cuda.stream.launch(Kernel::Attention(self, units, columns), dtype, shape, args)
    }
}

/// The runs of tokens, one per block.
fn tiles(tokens: &Tokens, units: Units) -> &Tensor {
    match units {
        Units::Ordinary => &tokens.tiles,
        Units::TensorCores => &tokens.matrix_tiles,
    }
}

fn sizes<'a>(heads: Heads) -> [Arg<'a>; 4] {
    [Arg::U32(heads.queries), Arg::U32(heads.keys), Arg::U32(heads.dim), Arg::F32(heads.scale())]
}

impl Attended {
    /// The result, `(tokens, queries * dim)`.
    pub(super) fn out(&self) -> &Tensor {
        &self.out
    }
}

impl KeySource<'_> {
    /// The shared rows of this layer and their number; without shared rows, `other` and 0.
    fn shared(&self, other: &Tensor) -> Result<(Tensor, usize)> {
        if let Some(keys) = self.shared
            && let Some(rows) = keys.layer(self.layer)?
        {
            return Ok((rows, keys.len()));
        }
        Ok((other.clone(), 0))
    }
}

/// Attention of `qkv: (tokens, stride)` after RoPE, over the tokens' own keys.
pub(super) fn forward(
    cuda: &Cuda,
    qkv: &Tensor,
    heads: Heads,
    tokens: &Tokens,
    source: KeySource,
) -> Result<Attended> {
    let lse = cuda.unwritten((qkv.dim(0)?, heads.queries), DType::F32)?;
    let out = tiled(cuda, qkv, heads, tokens, source, Arg::Null, Arg::Out(&lse))?;
    Ok(Attended { out, lse })
}

/// Rotates `qkv`, appends its keys and values to `caches`, which have room for them, and returns
/// [`forward`] over the caches.
pub(super) fn forward_cached(
    cuda: &Cuda,
    qkv: &Tensor,
    heads: Heads,
    tokens: &Tokens,
    caches: &Caches,
    source: KeySource,
) -> Result<Tensor> {
    if caches.single {
        return decode(cuda, qkv, heads, tokens, caches, source);
    }
    rotate(cuda, qkv, heads, tokens, false)?;
    append(cuda, qkv, heads, tokens, caches, source.layer)?;
    let table = Arg::Table(&caches.table, &caches.rows);
    tiled(cuda, qkv, heads, tokens, source, table, Arg::Null)
}

/// The tiled kernel, over the tokens' own keys or those of a table of caches.
fn tiled(
    cuda: &Cuda,
    qkv: &Tensor,
    heads: Heads,
    tokens: &Tokens,
    source: KeySource,
    caches: Arg,
    lse: Arg,
) -> Result<Tensor> {
    let (n, _) = qkv.dims2()?;
    let dtype = qkv.dtype();
    let out = cuda.unwritten((n, heads.queries * heads.dim), dtype)?;
    let (shared, shared_len) = source.shared(qkv)?;
    let args: Vec<Arg> = [
        Arg::In(qkv),
        Arg::In(tiles(tokens, Units::of(heads, dtype))),
        Arg::In(&tokens.starts),
        caches,
        Arg::U32(source.layer),
        Arg::In(&shared),
        Arg::U32(shared_len),
        Arg::Out(&out),
        lse,
    ]
    .into_iter()
    .chain(sizes(heads))
    .collect();
    Pass::Forward.launch(cuda, heads, dtype, tokens, &args)?;
    Ok(out)
}

/// [`forward_cached`] for one token of each sequence, in one launch.
fn decode(
    cuda: &Cuda,
    qkv: &Tensor,
    heads: Heads,
    tokens: &Tokens,
    caches: &Caches,
    source: KeySource,
) -> Result<Tensor> {
    let (n, _) = qkv.dims2()?;
    let dtype = qkv.dtype();
    let out = cuda.unwritten((n, heads.queries * heads.dim), dtype)?;
    let (shared, shared_len) = source.shared(qkv)?;
    let keys = caches.longest + shared_len;
    let pieces = keys.div_ceil(PIECE);
    let counters = cuda.counters(n * heads.queries)?.filter(|_| pieces > 1);
    // Without counters one block takes all keys of a head.
    let (pieces, piece) = if counters.is_some() { (pieces, PIECE) } else { (1, keys) };
    let parts = match counters {
        Some(_) => {
            let shape = (n * heads.queries * pieces, heads.dim + 2);
            Some(cuda.unwritten(shape, DType::F32)?)
        }
        None => None,
    };
    let Rotary { cos, sin, .. } = &*tokens.rotary;
    let args: Vec<Arg> = [
        Arg::In(qkv),
        Arg::In(&tokens.positions),
        Arg::In(cos),
        Arg::In(sin),
        Arg::In(&tokens.starts),
        Arg::Table(&caches.table, &caches.rows),
        Arg::U32(source.layer),
        Arg::In(&shared),
        Arg::U32(shared_len),
        Arg::Out(&out),
        parts.as_ref().map_or(Arg::Null, Arg::Out),
        counters.as_ref().map_or(Arg::Null, Arg::InOut),
        Arg::U32(pieces),
        Arg::U32(piece),
    ]
    .into_iter()
    .chain(sizes(heads))
    .collect();
    let launch = decode_launch(n * pieces, heads);
    cuda.stream.launch(Kernel::AttentionDecode, dtype, launch, &args)?;
    Ok(out)
}

/// One block per piece of a sequence's keys and query head.
fn decode_launch(pieces: usize, heads: Heads) -> Launch {
    let teams = DECODE_THREADS / 8;
    Launch {
        grid: (pieces, heads.queries),
        threads: DECODE_THREADS,
        // Sums of every team, and the rotated query and key.
        shared: (teams * (2 + heads.dim) + 2 * heads.dim) * size_of::<f32>(),
    }
}

/// Gradient of `qkv` for `d_out: (tokens, queries * dim)`; only for the tokens' own keys.
pub(super) fn backward(
    cuda: &Cuda,
    qkv: &Tensor,
    attended: &Attended,
    d_out: &Tensor,
    heads: Heads,
    tokens: &Tokens,
    source: KeySource,
) -> Result<Tensor> {
    let Attended { out, lse } = attended;
    let (n, _) = qkv.dims2()?;
    let dtype = qkv.dtype();
    let delta = cuda.unwritten((n, heads.queries), DType::F32)?;
    let args = [
        Arg::In(out),
        Arg::In(d_out),
        Arg::Out(&delta),
        Arg::U32(heads.queries),
        Arg::U32(heads.dim),
    ];
    cuda.stream.launch(Kernel::AttentionDelta, dtype, Launch::rows(n, 256), &args)?;

    let d_qkv = cuda.unwritten(qkv.dims(), dtype)?;
    let (shared, shared_len) = source.shared(qkv)?;
    let common = [
        Arg::In(qkv),
        Arg::In(d_out),
        Arg::In(lse),
        Arg::In(&delta),
        Arg::In(tiles(tokens, Units::of(heads, dtype))),
        Arg::In(&tokens.starts),
    ];
    let args: Vec<Arg> = common
        .into_iter()
        .chain([Arg::In(&shared), Arg::U32(shared_len), Arg::Out(&d_qkv)])
        .chain(sizes(heads))
        .collect();
    Pass::Queries.launch(cuda, heads, dtype, tokens, &args)?;

    // The columns of the keys; those of the queries stay unchanged.
    let args: Vec<Arg> =
        common.into_iter().chain([Arg::InOut(&d_qkv)]).chain(sizes(heads)).collect();
    Pass::Keys.launch(cuda, heads, dtype, tokens, &args)?;
    Ok(d_qkv)
}

/// Appends the keys and values of the tokens to caches that have already been extended.
fn append(
    cuda: &Cuda,
    qkv: &Tensor,
    heads: Heads,
    tokens: &Tokens,
    caches: &Caches,
    layer: usize,
) -> Result<()> {
    let (n, _) = qkv.dims2()?;
    let args = [
        Arg::In(qkv),
        Arg::In(&tokens.sequences),
        Arg::In(&tokens.starts),
        Arg::Table(&caches.table, &caches.rows),
        Arg::U32(layer),
        Arg::U32(heads.queries),
        Arg::U32(heads.keys),
        Arg::U32(heads.dim),
    ];
    cuda.stream.launch(Kernel::AppendKeys, qkv.dtype(), Launch::rows(n, 256), &args)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSES: [Pass; 3] = [Pass::Forward, Pass::Queries, Pass::Keys];

    fn heads(dim: usize) -> Heads {
        Heads { queries: 8, keys: 2, dim, window: None }
    }

    #[test]
    fn tiles_fit_the_smallest_device() {
        let ordinary = Pass::Forward.shared(Units::Ordinary, 64);
        assert_eq!(ordinary, 4 * (2 * 32 * 68 + 32 * 36));
        assert_eq!(
            PASSES.map(|pass| pass.shared(Units::TensorCores, 64)),
            [24 << 10, 32 << 10, 32 << 10]
        );
        assert_eq!(PASSES.map(|pass| pass.shared(Units::TensorCores, 128)), [48 << 10; 3]);
        for pass in PASSES {
            for columns in [64, 128] {
                assert!(pass.shared(Units::Ordinary, columns) <= 99 << 10);
            }
        }
        for dim in [4, 64, 68, 128] {
            assert!(check(heads(dim)).is_ok());
            assert!(decode_launch(3, heads(dim)).shared <= 48 << 10);
        }
        assert!(check(heads(130)).is_err() && check(heads(6)).is_err());
    }

    #[test]
    fn aligned_16_bit_heads_use_the_tensor_cores() {
        for dtype in [DType::F16, DType::BF16] {
            assert!(
                [8, 16, 80, 128].iter().all(|&d| Units::of(heads(d), dtype) == Units::TensorCores)
            );
            assert!([4, 20, 68].iter().all(|&d| Units::of(heads(d), dtype) == Units::Ordinary));
        }
        assert_eq!(Units::of(heads(128), DType::F32), Units::Ordinary);
    }
}
