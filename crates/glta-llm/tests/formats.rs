//! Compares every quantisation format with a plain model of equal weights, and every kind of batch
//! with single rows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod support;

use std::ops::ControlFlow;

use candle_core::{Device, Tensor, Var};
use glta_llm::{
    ForwardOptions, GenerateEvent, GenerateOptions, Llama, LlamaConfig, LlamaOptions, Precision,
    SimdLevel,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use support::Spec;

fn load(dir: &std::path::Path) -> Llama {
    Llama::load(dir, &LlamaOptions::default(), &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn relative_error(got: &Tensor, expected: &Tensor) -> f64 {
    let (got, expected) = (values(got), values(expected));
    assert_eq!(got.len(), expected.len());
    let norm: f64 = expected.iter().map(|&x| f64::from(x).powi(2)).sum();
    let error: f64 =
        got.iter().zip(&expected).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    (error / norm).sqrt()
}

/// Returns random values of the size of embeddings.
fn embeds(rows: usize, seq: usize, hidden: usize) -> Tensor {
    // Values have no structure, because states near zero would be ill-conditioned.
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let data: Vec<f32> = (0..rows * seq * hidden).map(|_| rng.random_range(-0.3..0.3)).collect();
    Tensor::from_vec(data, (rows, seq, hidden), &Device::Cpu).unwrap()
}

fn gradient(
    model: &Llama,
    x: &Tensor,
    lengths: &[usize],
    options: &ForwardOptions,
) -> (Tensor, Tensor) {
    let var = Var::from_tensor(x).unwrap();
    let out = model.hidden_states(&var, lengths, options).unwrap();
    let weights: Vec<f32> = (0..out.elem_count()).map(|i| (i as f32 * 1.3).cos()).collect();
    let weights = Tensor::from_vec(weights, out.shape(), &Device::Cpu).unwrap();
    let grads = (&out * weights).unwrap().sum_all().unwrap().backward().unwrap();
    (out.detach(), grads.get(&var).expect("a gradient").clone())
}

fn specs() -> Vec<Spec> {
    let base = Spec::default();
    let mut specs = Vec::new();
    for bits in [2, 3, 4, 8] {
        for (group, act_order) in
            [(32, false), (32, true), (16, false), (48, true), (0, false), (0, true)]
        {
            for (sym, v2) in [(true, false), (false, false), (false, true)] {
                specs.push(Spec {
                    bits,
                    group,
                    act_order,
                    sym,
                    v2,
                    bias: act_order,
                    tied: sym,
                    seed: specs.len() as u64,
                    ..base.clone()
                });
            }
        }
    }
    // Use multi-query attention with a head size that is not a multiple of a panel, and widths that
    // do not fill the last panel.
    specs.push(Spec {
        hidden: 80,
        inner: 144,
        heads: 4,
        kv_heads: 1,
        head_dim: 40,
        group: 16,
        ..base.clone()
    });
    specs
}

#[test]
fn every_format_equals_its_plain_twin() {
    for spec in specs() {
        let dir = tempfile::tempdir().unwrap();
        support::write_twins(dir.path(), &spec);
        let (gptq, plain) = (load(&dir.path().join("gptq")), load(&dir.path().join("plain")));
        let x = embeds(2, 7, spec.hidden);
        let options = ForwardOptions::default();
        let (a, da) = gradient(&gptq, &x, &[7, 5], &options);
        let (b, db) = gradient(&plain, &x, &[7, 5], &options);
        let (error, d_error) = (relative_error(&a, &b), relative_error(&da, &db));
        assert!(error < 1e-5 && d_error < 5e-5, "{spec:?}: {error:e} {d_error:e}");
        let (a, b) = (gptq.logits(&a).unwrap(), plain.logits(&b).unwrap());
        assert!(relative_error(&a, &b) < 1e-5, "{spec:?}");
    }
}

#[test]
fn instruction_sets_agree() {
    let spec = Spec { act_order: true, sym: false, ..Spec::default() };
    let dir = tempfile::tempdir().unwrap();
    support::write_twins(dir.path(), &spec);
    let run = |kind: &str, simd| {
        let options = LlamaOptions { simd: Some(simd), ..Default::default() };
        let model = Llama::load(dir.path().join(kind), &options, &Device::Cpu).unwrap();
        assert_eq!(model.simd_level(), Some(simd));
        gradient(&model, &embeds(2, 9, spec.hidden), &[9, 3], &ForwardOptions::default())
    };
    for kind in ["gptq", "plain"] {
        let (expected, d_expected) = run(kind, SimdLevel::Portable);
        for level in SimdLevel::supported() {
            let (got, d_got) = run(kind, level);
            assert!(relative_error(&got, &expected) < 1e-5);
            assert!(relative_error(&d_got, &d_expected) < 1e-5);
        }
    }
}

fn tiny() -> (tempfile::TempDir, Llama, Spec) {
    let spec = Spec { act_order: true, sym: false, ..Spec::default() };
    let dir = tempfile::tempdir().unwrap();
    support::write_twins(dir.path(), &spec);
    let model = load(&dir.path().join("gptq"));
    (dir, model, spec)
}

#[test]
fn rows_of_a_batch_equal_single_rows_bit_by_bit() {
    let (_dir, model, spec) = tiny();
    let lengths = [3, 70, 1, 33, 52];
    let x = embeds(5, 70, spec.hidden);
    let prefix = model.prefix(&[5, 9, 11, 7, 80, 3, 4]).unwrap();
    for prefix in [None, Some(&prefix)] {
        let options = ForwardOptions { prefix, ..Default::default() };
        let (all, d_all) = gradient(&model, &x, &lengths, &options);
        for (row, &length) in lengths.iter().enumerate() {
            let one = x.narrow(0, row, 1).unwrap().narrow(1, 0, length).unwrap();
            let alone = model.hidden_states(&one, &[length], &options).unwrap();
            let here = all.narrow(0, row, 1).unwrap();
            assert_eq!(values(&here.narrow(1, 0, length).unwrap()), values(&alone));
            let padding = here.narrow(1, length, 70 - length).unwrap();
            assert!(values(&padding).iter().all(|&v| v == 0.0));
            let d_padding =
                d_all.narrow(0, row, 1).unwrap().narrow(1, length, 70 - length).unwrap();
            assert!(values(&d_padding).iter().all(|&v| v == 0.0));
        }
    }
}

#[test]
fn a_prefix_equals_the_whole_prompt() {
    let (_dir, model, _) = tiny();
    let ids: Vec<u32> = (0..50).map(|i| i * 7 % 96).collect();
    let whole = model.embed(&ids).unwrap().unsqueeze(0).unwrap();
    let expected = model.hidden_states(&whole, &[50], &ForwardOptions::default()).unwrap();
    for split in [1, 20, 32, 49] {
        let prefix = model.prefix(&ids[..split]).unwrap();
        assert_eq!(prefix.len(), split);
        let rest = model.embed(&ids[split..]).unwrap().unsqueeze(0).unwrap();
        let options = ForwardOptions { prefix: Some(&prefix), ..Default::default() };
        let got = model.hidden_states(&rest, &[50 - split], &options).unwrap();
        let tail = expected.narrow(1, split, 50 - split).unwrap();
        assert!(relative_error(&got, &tail) < 1e-5);
        if split == 32 {
            assert_eq!(values(&got), values(&tail), "whole panels change no bit");
        }
    }
}

#[test]
fn a_cache_is_cut_back_and_reused() {
    let (_dir, model, spec) = tiny();
    let x = embeds(1, 40, spec.hidden).squeeze(0).unwrap();
    let whole = model
        .hidden_states(&x.unsqueeze(0).unwrap(), &[40], &ForwardOptions::default())
        .unwrap()
        .squeeze(0)
        .unwrap();
    let part = |from: usize, len: usize| x.narrow(0, from, len).unwrap();
    let same = |got: &Tensor, from: usize| {
        let expected = whole.narrow(0, from, got.dim(0).unwrap()).unwrap();
        assert!(relative_error(got, &expected) < 1e-6);
    };
    let mut cache = model.kv_cache();
    assert!(cache.is_empty());
    same(&model.extend(&part(0, 7), &mut cache).unwrap(), 0);
    let early = cache.clone();
    // Append other tokens and remove them again, which must leave no trace.
    model.extend(&part(20, 20), &mut cache).unwrap();
    cache.truncate(7);
    assert_eq!(cache.len(), 7);
    same(&model.extend(&part(7, 33), &mut cache).unwrap(), 7);
    cache.truncate(100);
    assert_eq!(cache.len(), 40);
    // The clone is independent of the cache, token by token.
    let mut cache = early;
    for i in 7..40 {
        same(&model.extend(&part(i, 1), &mut cache).unwrap(), i);
    }
}

#[test]
fn texts_of_a_batch_go_on_behind_their_own_caches() {
    let (_dir, model, spec) = tiny();
    let lengths = [9, 40, 2];
    let x = embeds(3, 40, spec.hidden);
    for shared in [0, 37] {
        let prefix = model.prefix(&(0..shared).collect::<Vec<u32>>()).unwrap();
        let options = ForwardOptions { prefix: Some(&prefix), ..Default::default() };
        let whole = model.hidden_states(&x, &lengths, &options).unwrap();
        let mut caches = vec![model.kv_cache(); 3];
        // The parts have different lengths; each text ends after its last part.
        let pieces = [[4, 33, 1], [5, 6, 1], [0, 1, 0]];
        for piece in pieces {
            let rows: Vec<usize> = (0..3).filter(|&r| piece[r] > 0).collect();
            let lengths: Vec<usize> = rows.iter().map(|&r| piece[r]).collect();
            let seq = *lengths.iter().max().unwrap();
            let part = |r: usize, of: &Tensor, at: usize| {
                of.get(r).unwrap().narrow(0, at, piece[r]).unwrap()
            };
            let embeds: Vec<Tensor> = rows
                .iter()
                .map(|&r| {
                    let own = part(r, &x, caches[r].len());
                    own.pad_with_zeros(0, 0, seq - piece[r]).unwrap()
                })
                .collect();
            let mut own: Vec<_> = rows.iter().map(|&r| caches[r].clone()).collect();
            let embeds = Tensor::stack(&embeds, 0).unwrap();
            let got = model.extend_batch(&embeds, &lengths, Some(&prefix), &mut own).unwrap();
            assert_eq!(got.dims(), [rows.len(), seq, spec.hidden]);
            for (i, (&r, cache)) in rows.iter().zip(own).enumerate() {
                let states = got.get(i).unwrap();
                let expected = part(r, &whole, caches[r].len());
                let real = states.narrow(0, 0, piece[r]).unwrap();
                assert!(relative_error(&real, &expected) < 1e-6);
                let padded = states.narrow(0, piece[r], seq - piece[r]).unwrap();
                assert!(values(&padded).iter().all(|&v| v == 0.0));
                caches[r] = cache;
            }
        }
        assert_eq!(caches.iter().map(|c| c.len()).collect::<Vec<_>>(), lengths);
        // A row that is too long leaves all caches unchanged.
        let long = embeds(3, 4096, spec.hidden);
        assert!(model.extend_batch(&long, &[1, 4096, 1], Some(&prefix), &mut caches).is_err());
        assert!(model.extend_batch(&x, &lengths, Some(&prefix), &mut caches[..2]).is_err());
        assert_eq!(caches.iter().map(|c| c.len()).collect::<Vec<_>>(), lengths);
    }
}

#[test]
fn a_cache_refuses_what_does_not_fit() {
    let (_dir, model, spec) = tiny();
    let mut cache = model.kv_cache();
    let x = embeds(1, 3, spec.hidden).squeeze(0).unwrap();
    model.extend(&x, &mut cache).unwrap();
    assert!(model.extend(&embeds(1, 3, spec.hidden), &mut cache).is_err());
    assert!(model.extend(&x.narrow(1, 0, 4).unwrap(), &mut cache).is_err());
    let long = Tensor::zeros((4096, spec.hidden), candle_core::DType::F32, &Device::Cpu).unwrap();
    assert!(model.extend(&long, &mut cache).is_err());
    assert_eq!(cache.len(), 3);
    let other = Llama::random(
        &LlamaConfig { num_key_value_heads: 4, ..model.config().clone() },
        1,
        &Device::Cpu,
    )
    .unwrap();
    assert!(other.extend(&x, &mut cache).is_err());
}

#[test]
fn states_at_some_positions_have_the_bits_of_the_whole_batch() {
    let positions = [(2, 8), (0, 0), (2, 3), (1, 0)];
    let (lengths, index) = ([5, 1, 9], positions.map(|(row, at)| (row * 9 + at) as u32));
    let index = Tensor::new(&index, &Device::Cpu).unwrap();
    for (precision, act_order) in [(Precision::F32, true), (Precision::Bf16, false)] {
        let spec = Spec { act_order, sym: false, ..Spec::default() };
        let dir = tempfile::tempdir().unwrap();
        support::write_twins(dir.path(), &spec);
        let options = LlamaOptions { precision, ..Default::default() };
        let model = Llama::load(dir.path().join("gptq"), &options, &Device::Cpu).unwrap();
        let x = Var::from_tensor(&embeds(3, 9, spec.hidden)).unwrap();
        let prefix = model.prefix(&(0..40).collect::<Vec<u32>>()).unwrap();
        let gradient = |states: &Tensor| {
            let weights = Tensor::arange(0f32, states.elem_count() as f32, &Device::Cpu).unwrap();
            let weights = weights.cos().unwrap().reshape(states.shape()).unwrap();
            let loss = (states * weights).unwrap().sum_all().unwrap();
            loss.backward().unwrap().get(&x).unwrap().clone()
        };
        for (prefix, recompute) in [(None, false), (Some(&prefix), false), (Some(&prefix), true)] {
            let options = ForwardOptions { prefix, recompute };
            let whole = model.hidden_states(&x, &lengths, &options).unwrap();
            let whole = whole.flatten(0, 1).unwrap().index_select(&index, 0).unwrap();
            let some = model.hidden_states_at(&x, &lengths, &positions, &options).unwrap();
            assert_eq!(values(&some), values(&whole));
            assert_eq!(values(&gradient(&some)), values(&gradient(&whole)));
            let fixed = x.as_detached_tensor();
            let fixed = model.hidden_states_at(&fixed, &lengths, &positions, &options).unwrap();
            assert_eq!(values(&fixed), values(&whole));
        }
        let options = ForwardOptions::default();
        let none = model.hidden_states_at(&x, &lengths, &[], &options).unwrap();
        assert_eq!(none.dims(), [0, spec.hidden]);
        for wrong in [[(3, 0), (0, 0)], [(0, 5), (0, 0)], [(1, 0), (1, 0)]] {
            let error = model.hidden_states_at(&x, &lengths, &wrong, &options).unwrap_err();
            assert!(error.to_string().contains("outside the batch or occurs twice"), "{error}");
        }
    }
}

#[test]
fn the_gradient_is_the_slope() {
    let (_dir, model, spec) = tiny();
    let lengths = [6, 50, 2];
    let x = embeds(3, 50, spec.hidden);
    let prefix = model.prefix(&(0..40).collect::<Vec<u32>>()).unwrap();
    for prefix in [None, Some(&prefix)] {
        let kept = ForwardOptions { prefix, recompute: false };
        let (_, grad) = gradient(&model, &x, &lengths, &kept);
        let again = ForwardOptions { recompute: true, ..kept };
        let (_, same) = gradient(&model, &x, &lengths, &again);
        assert_eq!(values(&grad), values(&same), "recomputation changes no bit");
        let loss = |x: &Tensor| -> f64 {
            let out = values(&model.hidden_states(x, &lengths, &kept).unwrap());
            out.iter()
                .enumerate()
                .map(|(i, &v)| f64::from(v) * f64::from((i as f32 * 1.3).cos()))
                .sum()
        };
        for k in 0..4 {
            let direction: Vec<f32> =
                (0..x.elem_count()).map(|i| ((i * (k + 3)) as f32 * 0.37).sin()).collect();
            let direction = Tensor::from_vec(direction, x.shape(), &Device::Cpu).unwrap();
            let h = 1e-3;
            let step = (&direction * h).unwrap();
            let slope = (loss(&(&x + &step).unwrap()) - loss(&(&x - &step).unwrap())) / (2.0 * h);
            let expected: f64 = values(&grad)
                .iter()
                .zip(values(&direction))
                .map(|(&g, d)| f64::from(g) * f64::from(d))
                .sum();
            let size: f64 = values(&grad).iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
            assert!(
                (slope - expected).abs() < 2e-3 * size * 10.0,
                "direction {k}: {slope} {expected} (gradient norm {size})"
            );
        }
    }
}

#[test]
fn nothing_is_tracked_without_a_variable() {
    let (_dir, model, spec) = tiny();
    let x = embeds(1, 4, spec.hidden);
    let out = model.hidden_states(&x, &[4], &ForwardOptions::default()).unwrap();
    assert!(!out.track_op());
    let var = Var::from_tensor(&x).unwrap();
    let out = model.hidden_states(&var, &[4], &ForwardOptions::default()).unwrap();
    assert!(out.track_op());
    let logits = model.logits(&out).unwrap();
    let grads = logits.sum_all().unwrap().backward().unwrap();
    let norm: f32 = values(grads.get(&var).expect("a gradient")).iter().map(|g| g * g).sum();
    assert!(norm > 0.0);
}

fn generate(model: &Llama, prompts: &[Vec<u32>], options: &GenerateOptions) -> Vec<Vec<u32>> {
    model.generate(prompts, options).unwrap()
}

#[test]
fn generation_does_not_depend_on_the_batch() {
    let (_dir, model, _) = tiny();
    let start: Vec<u32> = (0..37).map(|i| i * 5 % 96).collect();
    let prompts: Vec<Vec<u32>> = (0..9u32)
        .map(|i| start.iter().copied().chain((0..=i * 3).map(|j| (i + j * 11) % 96)).collect())
        .collect();
    let sampled = GenerateOptions {
        temperature: 0.9,
        top_k: 20,
        top_p: 0.95,
        repetition_penalty: 1.1,
        seed: 5,
        ..Default::default()
    };
    for options in [GenerateOptions::default(), sampled] {
        let options = GenerateOptions { max_new_tokens: 12, ignore_eos: true, ..options };
        let together = generate(&model, &prompts, &options);
        assert!(together.iter().all(|t| t.len() == 12));
        let narrow = GenerateOptions { batch_size: 2, ..options.clone() };
        assert_eq!(generate(&model, &prompts, &narrow), together);
        // Greedy results do not depend on the index of the prompt.
        if options.temperature == 0.0 {
            for (prompt, text) in prompts.iter().zip(&together) {
                assert_eq!(generate(&model, std::slice::from_ref(prompt), &options)[0], *text);
            }
        }
    }
}

#[test]
fn cached_generation_equals_running_the_whole_text() {
    let (_dir, model, _) = tiny();
    let prompt = vec![3, 50, 7, 21];
    let options = GenerateOptions { max_new_tokens: 40, ignore_eos: true, ..Default::default() };
    let text = &generate(&model, std::slice::from_ref(&prompt), &options)[0];
    let mut ids = prompt;
    for &token in text {
        let x = model.embed(&ids).unwrap().unsqueeze(0).unwrap();
        let hidden = model.hidden_states(&x, &[ids.len()], &ForwardOptions::default()).unwrap();
        let last = hidden.narrow(1, ids.len() - 1, 1).unwrap();
        let logits = values(&model.logits(&last).unwrap());
        let best =
            (0..logits.len()).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
        assert_eq!(best as u32, token);
        ids.push(token);
    }
}

#[test]
fn generation_stops_where_it_is_told() {
    let (_dir, model, _) = tiny();
    let prompts = [vec![3, 50, 7, 21], vec![8]];
    let free = GenerateOptions { max_new_tokens: 10, ignore_eos: true, ..Default::default() };
    let text = generate(&model, &prompts, &free);
    let stop = text[0][4];
    let cut = text[0].iter().position(|&t| t == stop).unwrap();
    let options = GenerateOptions { stop_ids: vec![stop], ..free.clone() };
    assert_eq!(generate(&model, &prompts, &options)[0], text[0][..cut]);
    let mut calls = 0;
    let cancelled = model.generate_with(&prompts, &free, &mut |_: &GenerateEvent| {
        calls += 1;
        if calls == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(cancelled, Err(glta_llm::Error::Cancelled)));
    assert_eq!(calls, 3);
    for bad in [vec![], vec![96], vec![1; 5000]] {
        assert!(model.generate(&[bad], &free).is_err());
    }
    // A text also ends at the maximum context.
    let long = GenerateOptions { max_new_tokens: 100, ..free };
    assert_eq!(generate(&model, &[vec![4; 2040]], &long)[0].len(), 9);
}

#[test]
fn truncated_and_random_models_run() {
    let (dir, model, spec) = tiny();
    let one = LlamaOptions { layers: Some(1), ..Default::default() };
    let short = Llama::load(dir.path().join("gptq"), &one, &Device::Cpu).unwrap();
    assert_eq!(short.config().num_hidden_layers, 1);
    let ids = [4, 8, 15];
    let first = short.layer_hidden_states(&ids, 1).unwrap();
    assert_eq!(values(&first), values(&model.layer_hidden_states(&ids, 1).unwrap()));
    assert_eq!(
        values(&model.layer_hidden_states(&ids, 0).unwrap()),
        values(&model.embed(&ids).unwrap())
    );
    assert!(model.layer_hidden_states(&ids, 3).is_err());
    for layers in [0, 3] {
        let options = LlamaOptions { layers: Some(layers), ..Default::default() };
        assert!(Llama::load(dir.path().join("gptq"), &options, &Device::Cpu).is_err());
    }
    let random = Llama::random(model.config(), 3, &Device::Cpu).unwrap();
    let again = Llama::random(model.config(), 3, &Device::Cpu).unwrap();
    let other = Llama::random(model.config(), 4, &Device::Cpu).unwrap();
    let run = |m: &Llama| {
        values(
            &m.hidden_states(&embeds(1, 5, spec.hidden), &[5], &ForwardOptions::default()).unwrap(),
        )
    };
    assert_eq!(run(&random), run(&again));
    assert_ne!(run(&random), run(&other));
    assert!((random.embedding_rms() - 0.02).abs() < 0.002);
}

#[test]
fn a_list_of_quantised_modules_must_fit_the_tensors() {
    let dir = tempfile::tempdir().unwrap();
    support::write_twins(dir.path(), &Spec::default());
    let path = dir.path().join("gptq/config.json");
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let mut with_modules = |modules: &str| {
        config["quantization_config"]["modules_in_block_to_quantize"] =
            serde_json::from_str(modules).unwrap();
        std::fs::write(&path, config.to_string()).unwrap();
        Llama::load(dir.path().join("gptq"), &LlamaOptions::default(), &Device::Cpu)
    };
    with_modules(
        r#"[["self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj"], ["self_attn.o_proj"],
            ["mlp.up_proj", "mlp.gate_proj"], ["mlp.down_proj"]]"#,
    )
    .unwrap();
    with_modules("[]").unwrap();
    for some in [r#"[["self_attn.q_proj"]]"#, r#"{"mlp.down_proj": true}"#] {
        let error = with_modules(some).unwrap_err().to_string();
        assert!(error.contains("modules_in_block_to_quantize"), "{error}");
    }
}
