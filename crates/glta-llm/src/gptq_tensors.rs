//! Reads the tensors of a GPTQ linear layer, checked against the quantisation settings.

use std::path::Path;

use glta_kernels::{Arena, GptqTensors, Matrix, ScalesRef};
use safetensors::Dtype;

use crate::checkpoint::{Checkpoint, FLOATS, View};
use crate::config::{CheckpointFormat, QuantizeConfig};
use crate::error::{Error, Result};

/// Tensors of a layer, whose shapes have been checked.
pub(crate) struct Parts<'a> {
    qweight: View<'a>,
    qzeros: View<'a>,
    scales: View<'a>,
    /// Group of each input; `None` in files with consecutive groups.
    g_idx: Option<View<'a>>,
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
        let bits = q.bits as usize;
        let group_size = q.group_size.unwrap_or(k);
        let n_groups = k.div_ceil(group_size);
        let name = |part: &str| format!("{prefix}.{part}");
        let plain = name("weight");
        if !checkpoint.contains(&name("qweight")) && checkpoint.contains(&plain) {
            return Err(checkpoint.get(&plain)?.error(
                "is a plain weight, but the quantization of config.json or \
                 quantize_config.json covers this layer",
            ));
        }
        let qweight = checkpoint.get(&name("qweight"))?;
        let qzeros = checkpoint.get(&name("qzeros"))?;
        let scales = checkpoint.get(&name("scales"))?;
        // Without act-order all groups are consecutive, so a file may omit them.
        let needed = q.desc_act || checkpoint.contains(&name("g_idx"));
        let g_idx = needed.then(|| checkpoint.get(&name("g_idx"))).transpose()?;
        if !(k * bits).is_multiple_of(32) || !(n * bits).is_multiple_of(32) {
            return Err(qweight.error(format!(
                "{k} inputs and {n} outputs of {bits} bits do not fill whole 32-bit words"
            )));
        }
        let shaped = |view: &View<'_>, shape: &[usize], dtypes: &[Dtype]| {
            view.expect(shape, dtypes).map_err(|error| match error {
                Error::Tensor { path, tensor, problem } => {
                    let size = q.group_size.map_or(-1, |size| size as i64);
                    let problem = format!("{problem} by bits {bits} and group_size {size}");
                    Error::Tensor { path, tensor, problem }
                }
                other => other,
            })
        };
        shaped(&qweight, &[k * bits / 32, n], &[Dtype::I32])?;
        shaped(&qzeros, &[n_groups, n * bits / 32], &[Dtype::I32])?;
        shaped(&scales, &[n_groups, n], FLOATS)?;
        if let Some(view) = &g_idx {
            view.expect(&[k], &[Dtype::I32])?;
        }
        Ok(Self { qweight, qzeros, scales, g_idx, group_size, n_groups })
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
    let Parts { qweight, qzeros, scales, g_idx, group_size, n_groups } =
        Parts::find(checkpoint, prefix, n, k, q)?;
    let groups: Vec<u32> = match &g_idx {
        Some(view) => {
            let groups = view.cast::<u32>().into_owned();
            check_groups(&groups, group_size, n_groups).map_err(|m| view.error(m))?;
            groups
        }
        None => (0..k).map(|i| (i / group_size) as u32).collect(),
    };
    let qweight_words = qweight.cast::<u32>();
    let qzeros_words = qzeros.cast::<u32>();
    let format = stored_format(checkpoint, &qzeros, &qzeros_words, q);
    let wide_scales = scales.to_f32()?;
    let f16_scales = (scales.dtype == Dtype::F16).then(|| scales.cast::<u16>());
    let matrix = Matrix::quantized(
        arena,
        &GptqTensors {
            bits: q.bits,
            n,
            k,
            n_groups,
            qweight: &qweight_words,
            qzeros: &qzeros_words,
            v1: format == CheckpointFormat::V1,
            scales: match &f16_scales {
                Some(scales) => ScalesRef::F16(scales),
                None => ScalesRef::F32(&wide_scales),
            },
            g_idx: &groups,
        },
    )?;
    checkpoint.release(qweight.name);
    Ok(matrix)
}

/// Returns the format of the stored zero points. All zero points of a symmetric layer are in the
/// middle of the range, so the format follows from the tensor even if the settings name the wrong
/// one.
fn stored_format(
    checkpoint: &Checkpoint,
    qzeros: &View<'_>,
    words: &[u32],
    q: &QuantizeConfig,
) -> CheckpointFormat {
    let labelled = q.checkpoint_format;
    if !q.sym {
        return labelled;
    }
    let middle = 1u32 << (q.bits - 1);
    let (stored, other, name) = match labelled {
        CheckpointFormat::V1 => (middle - 1, CheckpointFormat::V2, "gptq_v2"),
        _ => (middle, CheckpointFormat::V1, "gptq"),
    };
    // The other format stores this value for the same zero points.
    let theirs = if stored == middle { middle - 1 } else { middle };
    let all = |field: u32| {
        // Three words contain whole fields for every number of bits.
        let pattern = [0, 1, 2].map(|word| packed_word(field, q.bits, word));
        !words.is_empty() && words.iter().zip(pattern.iter().cycle()).all(|(w, p)| w == p)
    };
    if all(stored) || !all(theirs) {
        return labelled;
    }
    if !checkpoint.relabelled.replace(true) {
        tracing::warn!(
            "{}: `{}` holds {theirs} everywhere, which is the zero point {middle} of `sym: true` \
             as {name} stores it, but the files say another checkpoint_format; layers like this \
             are read as {name}",
            qzeros.path.display(),
            qzeros.name
        );
    }
    other
}

/// Returns word `word` of a bit stream in which all fields have the value `field`.
fn packed_word(field: u32, bits: u32, word: u32) -> u32 {
    (0..32).fold(0, |packed, bit| {
        let of_field = (word * 32 + bit) % bits;
        packed | (field >> of_field & 1) << bit
    })
}

/// Rejects GPTQ weights without quantisation settings, and suggests settings to write.
pub(crate) fn refuse_unstated(dir: &Path, checkpoint: &Checkpoint) -> Result<()> {
    let end = ".qweight";
    let Some(name) = checkpoint.names().find(|name| name.ends_with(end)) else {
        return Ok(());
    };
    let prefix = name.strip_suffix(end).unwrap_or(name);
    let example = infer(checkpoint, prefix).map_or_else(
        || "bits, group_size, desc_act and sym".to_owned(),
        |(bits, group_size)| {
            let act = !checkpoint.contains(&format!("{prefix}.g_idx"));
            let order = if act { "false" } else { "true or false" };
            format!(
                "{{\"bits\": {bits}, \"group_size\": {group_size}, \"desc_act\": {order}, \
                 \"sym\": true or false}} (bits and group_size by the shapes of its tensors)"
            )
        },
    );
    Err(Error::tensor(
        checkpoint.path(),
        name,
        format!(
            "a GPTQ weight, but {} has no `quantization_config` and there is no {}; write there \
             {example}",
            dir.join("config.json").display(),
            dir.join("quantize_config.json").display()
        ),
    ))
}

/// Infers the number of bits and the group size from the shapes of a layer's tensors.
fn infer(checkpoint: &Checkpoint, prefix: &str) -> Option<(usize, i64)> {
    let shape = |part: &str| checkpoint.shape(&format!("{prefix}.{part}"));
    let (&[groups, outputs], &[_, packed]) = (shape("scales")?, shape("qzeros")?) else {
        return None;
    };
    let &[rows, _] = shape("qweight")? else { return None };
    let bits = (packed * 32).checked_div(outputs).filter(|bits| [2, 3, 4, 8].contains(bits))?;
    let inputs = rows * 32 / bits;
    let size = inputs.div_ceil(groups.max(1));
    // Group sizes are powers of two, and the last group may be incomplete.
    let size = if groups == 1 { -1 } else { size.next_power_of_two() as i64 };
    Some((bits, size))
}

/// Checks that each group contains `group_size` rows, except the last one, which contains the
/// remainder.
fn check_groups(
    g_idx: &[u32],
    group_size: usize,
    n_groups: usize,
) -> std::result::Result<(), String> {
    let mut counts = vec![0usize; n_groups];
    for (row, &group) in g_idx.iter().enumerate() {
        match counts.get_mut(group as usize) {
            Some(count) => *count += 1,
            None => {
                return Err(format!(
                    "row {row} is in group {}, but there are {n_groups}",
                    group as i32
                ));
            }
        }
    }
    for (group, &count) in counts.iter().enumerate() {
        let expected = group_size.min(g_idx.len() - group * group_size);
        if count != expected {
            return Err(format!("group {group} has {count} rows, expected {expected}"));
        }
    }
    Ok(())
}
