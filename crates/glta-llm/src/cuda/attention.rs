//! Causal attention over packed sequences, its derivative, and key-value caches.

use super::keys::Keys;
use super::{Arg, Launch, Source, Tokens, elementwise, launch, unwritten};
use crate::error::{Error, Result};
use crate::kernel::attention::Heads;
use candle_core::{DType, Tensor};

/// Queries and keys of a tile.
pub(super) const TILE: usize = 32;
const THREADS: usize = 128;
const DECODE_THREADS: usize = 256;

/// Where a layer's keys and values come from beside its own projection.
#[derive(Clone, Copy)]
pub(crate) struct KeySource<'a> {
    pub(crate) layer: usize,
    /// A block that stands before every sequence.
    pub(crate) shared: Option<&'a Keys>,
}

/// What a layer's attention computed.
pub(crate) struct Attended {
    /// `(tokens, queries * dim)`
    pub(crate) out: Tensor,
    /// Logarithm of every softmax's denominator, `(tokens, queries)` f32; absent
    /// where sequences have caches.
    lse: Option<Tensor>,
}

/// Whether the kernels do heads of this shape.
pub(crate) fn check(heads: Heads) -> Result<()> {
    if heads.dim.is_multiple_of(4) && heads.dim <= 128 {
        return Ok(());
    }
    Err(Error::Unsupported {
        what: format!("head_dim {} on a CUDA device", heads.dim),
        supported: "multiples of 4 up to 128",
    })
}

/// Rotates queries and keys of `qkv` in place, back where `inverse`.
pub(crate) fn rotate(qkv: &Tensor, heads: Heads, tokens: &Tokens, inverse: bool) -> Result<()> {
    let Some((cos, sin)) = &tokens.rope.device else {
        return Err(Error::Input("the rotary table is not on the device".into()));
    };
    let rotated = heads.queries + heads.keys;
    elementwise::rope(qkv, &tokens.positions, (cos, sin), rotated, heads.dim, inverse)
}

/// The columns that the kernel is made for, and bytes of so many of its tiles of
/// rows and of scores.
fn tiled(heads: Heads, rows: usize, scores: usize) -> (usize, usize) {
    let columns = if heads.dim <= 64 { 64 } else { 128 };
    let floats = rows * TILE * (columns + 4) + scores * TILE * (TILE + 4);
    (columns, floats * size_of::<f32>())
}

fn sizes<'a>(heads: Heads) -> [Arg<'a>; 4] {
    [Arg::U32(heads.queries), Arg::U32(heads.keys), Arg::U32(heads.dim), Arg::F32(heads.scale())]
}

impl KeySource<'_> {
    /// The shared rows of this layer and their number; `other` stands for none.
    fn shared(&self, other: &Tensor) -> Result<(Tensor, usize)> {
        if let Some(keys) = self.shared
            && let Some(rows) = keys.layer(self.layer)?
        {
            return Ok((rows, keys.len()));
        }
        Ok((other.clone(), 0))
    }
}

/// Attention of `qkv: (tokens, stride)` after RoPE, over the caches of `tokens`
/// where there are some (which hold the tokens' own keys already).
pub(crate) fn forward(
    qkv: &Tensor,
    heads: Heads,
    tokens: &Tokens,
    source: KeySource,
) -> Result<Attended> {
    let (n, _) = qkv.dims2()?;
    let out = unwritten((n, heads.queries * heads.dim), qkv.dtype(), qkv.device())?;
    let (shared, shared_len) = source.shared(qkv)?;
    let keys = [
        Arg::In(&tokens.starts),
        Arg::optional(tokens.caches.as_ref()),
        Arg::U32(source.layer),
        Arg::In(&shared),
        Arg::U32(shared_len),
        Arg::Out(&out),
    ];
    if tokens.single && tokens.caches.is_some() {
        let args: Vec<Arg> = [Arg::In(qkv)].into_iter().chain(keys).chain(sizes(heads)).collect();
        let shape = decode_launch(n, heads);
        launch(Source::Attention, "attention_decode", qkv.dtype(), shape, &args)?;
        return Ok(Attended { out, lse: None });
    }
    let lse = match tokens.caches {
        None => Some(unwritten((n, heads.queries), DType::F32, qkv.device())?),
        Some(_) => None,
    };
    let (columns, shared_bytes) = tiled(heads, 2, 1);
    let args: Vec<Arg> = [Arg::In(qkv), Arg::In(&tokens.tiles)]
        .into_iter()
        .chain(keys)
        .chain([lse.as_ref().map_or(Arg::Null, Arg::Out)])
        .chain(sizes(heads))
        .collect();
    let shape =
        Launch { grid: (tokens.n_tiles(), heads.queries), threads: THREADS, shared: shared_bytes };
    launch(Source::Attention, &format!("attention{columns}"), qkv.dtype(), shape, &args)?;
    Ok(Attended { out, lse })
}

/// A block for each sequence and query head.
fn decode_launch(sequences: usize, heads: Heads) -> Launch {
    let teams = DECODE_THREADS / 8;
    Launch {
        grid: (sequences, heads.queries),
        threads: DECODE_THREADS,
        shared: teams * (2 + heads.dim) * size_of::<f32>(),
    }
}

/// Gradient at `qkv` given `d_out: (tokens, queries * dim)`; own keys only.
pub(crate) fn backward(
    qkv: &Tensor,
    attended: &Attended,
    d_out: &Tensor,
    heads: Heads,
    tokens: &Tokens,
    source: KeySource,
) -> Result<Tensor> {
    let Some(lse) = &attended.lse else {
        return Err(Error::Input("attention over a cache has no derivative".into()));
    };
    let (n, _) = qkv.dims2()?;
    let dtype = qkv.dtype();
    let delta = unwritten((n, heads.queries), DType::F32, qkv.device())?;
    let args = [
        Arg::In(&attended.out),
        Arg::In(d_out),
        Arg::Out(&delta),
        Arg::U32(heads.queries),
        Arg::U32(heads.dim),
    ];
    launch(Source::Attention, "attention_delta", dtype, Launch::rows(n, 256), &args)?;

    let d_qkv = unwritten(qkv.dims(), dtype, qkv.device())?;
    let (shared, shared_len) = source.shared(qkv)?;
    let common = [
        Arg::In(qkv),
        Arg::In(d_out),
        Arg::In(lse),
        Arg::In(&delta),
        Arg::In(&tokens.tiles),
        Arg::In(&tokens.starts),
    ];
    let (columns, bytes) = tiled(heads, 4, 1);
    let args: Vec<Arg> = common
        .into_iter()
        .chain([Arg::In(&shared), Arg::U32(shared_len), Arg::Out(&d_qkv)])
        .chain(sizes(heads))
        .collect();
    let shape = Launch { grid: (tokens.n_tiles(), heads.queries), threads: THREADS, shared: bytes };
    launch(Source::Attention, &format!("attention_queries{columns}"), dtype, shape, &args)?;

    // The columns of the keys; those of the queries stay.
    let (columns, bytes) = tiled(heads, 4, 2);
    let args: Vec<Arg> =
        common.into_iter().chain([Arg::InOut(&d_qkv)]).chain(sizes(heads)).collect();
    let shape = Launch { grid: (tokens.n_tiles(), heads.keys), threads: THREADS, shared: bytes };
    launch(Source::Attention, &format!("attention_keys{columns}"), dtype, shape, &args)?;
    Ok(d_qkv)
}

/// Writes the tokens' keys and values into their caches, which have grown by them.
pub(crate) fn append(qkv: &Tensor, heads: Heads, tokens: &Tokens, layer: usize) -> Result<()> {
    let (n, _) = qkv.dims2()?;
    let args = [
        Arg::In(qkv),
        Arg::In(&tokens.sequences),
        Arg::In(&tokens.starts),
        Arg::optional(tokens.caches.as_ref()),
        Arg::U32(layer),
        Arg::U32(heads.queries),
        Arg::U32(heads.keys),
        Arg::U32(heads.dim),
    ];
    launch(Source::Attention, "append_keys", qkv.dtype(), Launch::rows(n, 256), &args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_fit_the_smallest_device() {
        let heads = |dim| Heads { queries: 8, keys: 2, dim };
        assert_eq!(tiled(heads(64), 2, 1), (64, 4 * (2 * 32 * 68 + 32 * 36)));
        for dim in [4, 64, 68, 128] {
            let (columns, bytes) = tiled(heads(dim), 4, 2);
            assert!(columns >= dim && bytes <= 99 << 10, "{bytes}");
            assert!(check(heads(dim)).is_ok());
            assert!(decode_launch(3, heads(dim)).shared <= 48 << 10);
        }
        assert!(check(heads(130)).is_err() && check(heads(6)).is_err());
    }
}
