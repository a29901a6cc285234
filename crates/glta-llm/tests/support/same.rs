//! Compares all functions of a model on a device with the same model on the CPU.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var};
use glta_llm::{ForwardOptions, GenerateOptions, Llama, Precision};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_device(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Returns the relative error in the L2 norm.
pub fn error(got: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(got.dims(), expected.dims());
    let (got, expected) = (values(got), values(expected));
    let off: f64 =
        got.iter().zip(&expected).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    (off / expected.iter().map(|&b| f64::from(b).powi(2)).sum::<f64>()).sqrt()
}

fn random(shape: &[usize], seed: u64, device: &Device) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let len = shape.iter().product();
    let data: Vec<f32> = (0..len).map(|_| rng.random_range(-0.3..0.3)).collect();
    Tensor::from_vec(data, shape, device).unwrap()
}

fn ids(model: &Llama, len: usize, step: usize) -> Vec<u32> {
    (0..len).map(|i| (i * step % model.config().vocab_size) as u32).collect()
}

/// Returns hidden states, logits, and the gradient of a sum over both.
fn pass(
    model: &Llama,
    seq: usize,
    lengths: &[usize],
    prefix: usize,
    recompute: bool,
) -> [Tensor; 3] {
    let shape = [lengths.len(), seq, model.config().hidden_size];
    let x = Var::from_tensor(&random(&shape, 1, model.device())).unwrap();
    let prefix = model.prefix(&ids(model, prefix, 7)).unwrap();
    let options = ForwardOptions { prefix: Some(&prefix), recompute };
    let hidden = model.hidden_states(&x, lengths, &options).unwrap();
    let logits = model.logits(&hidden).unwrap();
    let weigh =
        |t: &Tensor, seed| (t * random(t.dims(), seed, model.device())).unwrap().sum_all().unwrap();
    let loss = (weigh(&hidden, 2) + weigh(&logits, 3)).unwrap();
    let gradient = loss.backward().unwrap().get(&x).unwrap().clone();
    [hidden, logits, gradient]
}

/// Returns the hidden states at the ends of the rows, and the gradient of a sum over them. With
/// `whole`, all positions are computed and the ends are taken from the result.
fn selected(
    model: &Llama,
    seq: usize,
    lengths: &[usize],
    prefix: usize,
    (recompute, whole): (bool, bool),
) -> [Tensor; 2] {
    let hidden = model.config().hidden_size;
    let x = Var::from_tensor(&random(&[lengths.len(), seq, hidden], 4, model.device())).unwrap();
    let prefix = model.prefix(&ids(model, prefix, 7)).unwrap();
    let options = ForwardOptions { prefix: Some(&prefix), recompute };
    let last = lengths.iter().enumerate().map(|(row, &length)| (row, length - 1));
    let positions: Vec<(usize, usize)> = last.rev().collect();
    let states = if whole {
        let index = positions.iter().map(|&(row, at)| (row * seq + at) as u32);
        let index = Tensor::from_iter(index, model.device()).unwrap();
        let states = model.hidden_states(&x, lengths, &options).unwrap();
        states.flatten(0, 1).unwrap().index_select(&index, 0).unwrap()
    } else {
        model.hidden_states_at(&x, lengths, &positions, &options).unwrap()
    };
    let weights = random(states.dims(), 5, model.device());
    let loss = (&states * weights).unwrap().sum_all().unwrap();
    let gradient = loss.backward().unwrap().get(&x).unwrap().clone();
    [states, gradient]
}

/// Returns the states of a text that is read in parts, some of them twice.
fn text(model: &Llama) -> Tensor {
    let mut cache = model.kv_cache();
    let mut states = Vec::new();
    let mut read = |cache: &mut _, from: usize, len: usize| {
        let ids = &ids(model, from + len, 11)[from..];
        states.push(model.extend(&model.embed(ids).unwrap(), cache).unwrap());
    };
    read(&mut cache, 0, 1);
    read(&mut cache, 1, 20);
    // The clone is independent: its tokens do not appear in the original.
    let mut other = cache.clone();
    read(&mut other, 3, 50);
    for i in 21..24 {
        read(&mut cache, i, 1);
    }
    cache.truncate(18);
    assert_eq!(cache.len(), 18);
    read(&mut cache, 18, 2);
    Tensor::cat(&states, 0).unwrap()
}

pub fn generate(model: &Llama) -> Vec<Vec<u32>> {
    let start = ids(model, 37, 5);
    let prompts: Vec<Vec<u32>> = (0..4)
        .map(|i| start.iter().copied().chain(ids(model, 1 + 3 * i, 3 + i)).collect())
        .collect();
    let options = GenerateOptions {
        max_new_tokens: 6,
        ignore_eos: true,
        batch_size: 3,
        ..GenerateOptions::default()
    };
    model.generate(&prompts, &options).unwrap()
}

/// Checks that all results agree with `reference` within a relative bound: 1e-4 in f32, and the
/// given bounds in bf16 and f16. A whole model rounds about a dozen times per layer, so these
/// bounds exceed the 1e-2 of a single kernel.
pub fn check(
    what: &str,
    precision: Precision,
    [bf16, f16]: [f64; 2],
    model: &Llama,
    reference: &Llama,
) {
    let bound = match precision {
        Precision::F32 => 1e-4,
        Precision::Bf16 => bf16,
        _ => f16,
    };
    let what = format!("{what}, {precision:?}");
    let close = |part: &str, got: &Tensor, expected: &Tensor| {
        let off = error(got, expected);
        assert!(off <= bound, "{what}, {part}: {off:e}");
        off
    };
    let mut largest = BTreeMap::<&str, f64>::new();
    let mut note = |part: &'static str, off: f64| {
        let largest = largest.entry(part).or_default();
        *largest = largest.max(off);
    };
    // Few tokens and many tokens use different products.
    for (seq, lengths, prefix) in
        [(3, vec![1, 2], 0), (9, vec![9, 5, 1], 11), (40, vec![40, 17], 33)]
    {
        let expected = pass(reference, seq, &lengths, prefix, false);
        let expected_at = selected(reference, seq, &lengths, prefix, (false, false));
        let whole_at = selected(model, seq, &lengths, prefix, (false, true));
        for recompute in [false, true] {
            let got = pass(model, seq, &lengths, prefix, recompute);
            for (part, (got, expected)) in
                ["hidden", "logits", "gradient"].into_iter().zip(got.iter().zip(&expected))
            {
                assert!(got.device().same_device(model.device()));
                note(part, close(&format!("{part} of {lengths:?}"), got, expected));
            }
            // A gradient of few tokens is less precise than one of all tokens, so the limit is also
            // the error of the same gradient through all positions.
            let got = selected(model, seq, &lengths, prefix, (recompute, false));
            for (i, part) in ["hidden at", "gradient at"].into_iter().enumerate() {
                let off = error(&got[i], &expected_at[i]);
                let limit = f64::max(bound, 1.3 * error(&whole_at[i], &expected_at[i]));
                assert!(off <= limit, "{what}, {part} the ends of {lengths:?}: {off:e}");
                note(part, off);
            }
        }
    }
    let layers = model.config().num_hidden_layers;
    let tokens = ids(model, 23, 3);
    assert_eq!(error(&model.embed(&tokens).unwrap(), &reference.embed(&tokens).unwrap()), 0.0);
    for layer in [0, 1, layers] {
        let states = |m: &Llama| m.layer_hidden_states(&tokens, layer).unwrap();
        note("layer", close("layer_hidden_states", &states(model), &states(reference)));
    }
    note("text", close("a text in pieces", &text(model), &text(reference)));
    let (got, expected) = (generate(model), generate(reference));
    if bound < 1e-3 {
        assert_eq!(got, expected, "{what}");
    }
    assert!(got.iter().all(|text| text.len() == 6));
    assert!(model.resident_bytes() > 0);
    assert_eq!(model.embedding_rms(), reference.embedding_rms());
    let largest: Vec<String> = largest.iter().map(|(p, off)| format!("{p} {off:.1e}")).collect();
    println!("{what}: largest relative errors: {}", largest.join(", "));
}
