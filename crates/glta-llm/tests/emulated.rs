//! Compares whole models that run the CUDA kernels on the host with models on the CPU.
#![allow(clippy::unwrap_used)]

#[path = "support/same.rs"]
mod same;
mod support;

use candle_core::Device;
use glta_kernels::Cuda;
use glta_llm::{ForwardOptions, GenerateOptions, Llama, LlamaConfig, LlamaOptions, Precision};

use support::Spec;

/// Checks that errors are at most 1.3 times those that were measured for the same kernels.
fn check(spec: &Spec, measured: [f64; 2], kinds: &[&str], precisions: &[Precision]) {
    let dir = tempfile::tempdir().unwrap();
    support::write_twins(dir.path(), spec);
    for kind in kinds {
        let dir = dir.path().join(kind);
        let reference = Llama::load(&dir, &LlamaOptions::default(), &Device::Cpu).unwrap();
        for &precision in precisions {
            let options = LlamaOptions::default();
            let model = Llama::load_on(&dir, &options, Cuda::emulated(precision)).unwrap();
            let what = format!("{kind}, {} bits, {} wide", spec.bits, spec.hidden);
            same::check(&what, precision, measured.map(|error| 1.3 * error), &model, &reference);
        }
    }
}

const F32: [Precision; 1] = [Precision::F32];
const HALVES: [Precision; 2] = [Precision::Bf16, Precision::F16];

#[test]
fn every_precision() {
    let [(spec, measured), ..] = Spec::formats();
    check(&spec, measured, &["gptq", "plain"], &F32);
    check(&spec, measured, &["gptq", "plain"], &HALVES);
}

/// The same tokens from graphs, from launches by the host, and from scores on the host.
#[test]
fn graphs_change_no_token() {
    let dir = tempfile::tempdir().unwrap();
    support::write_twins(dir.path(), &Spec::default());
    let dir = dir.path().join("gptq");
    let options = LlamaOptions::default();
    let prompts: Vec<Vec<u32>> =
        (0..4).map(|i| (0..35 + 2 * i).map(|at| (at * 5) % 37).chain([i]).collect()).collect();
    for precision in [Precision::Bf16, Precision::F32] {
        let texts = |graphs, drawn| {
            let cuda = Cuda::emulated(precision).graphs(graphs);
            let model = Llama::load_on(&dir, &options, cuda).unwrap();
            let options = GenerateOptions {
                max_new_tokens: 5,
                ignore_eos: true,
                batch_size: 3,
                temperature: if drawn { 1.0 } else { 0.0 },
                // The most likely token is the only one that can be drawn.
                top_k: 1,
                ..GenerateOptions::default()
            };
            model.generate(&prompts, &options).unwrap()
        };
        let expected = texts(false, true);
        assert!(expected.iter().all(|text| text.len() == 5));
        assert_eq!(texts(true, false), expected, "{precision:?}");
        assert_eq!(texts(false, false), expected, "{precision:?}");
    }
}

#[test]
fn every_format() {
    let [_, small @ .., _] = Spec::formats();
    for (spec, measured) in small {
        check(&spec, measured, &["gptq"], &F32);
    }
    let spec = Spec {
        hidden: 80,
        inner: 144,
        heads: 4,
        kv_heads: 1,
        head_dim: 40,
        group: 16,
        ..Spec::default()
    };
    check(&spec, [0.0; 2], &["gptq"], &F32);
}

/// The limits are those of [`Spec::formats`].
#[test]
#[ignore = "takes minutes; run with --ignored after changes of kernels in f16 and bf16"]
fn every_format_in_halves() {
    let [_, others @ ..] = Spec::formats();
    for (spec, measured) in others {
        check(&spec, measured, &["gptq"], &HALVES);
    }
}

#[test]
fn random_models_and_what_is_refused() {
    let config = LlamaConfig {
        vocab_size: 50,
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        initializer_range: 0.2,
        ..LlamaConfig::default()
    };
    let cuda = Cuda::emulated(Precision::F32);
    let model = Llama::random_on(&config, 3, cuda.clone()).unwrap();
    let reference = Llama::random(&config, 3, &Device::Cpu).unwrap();
    same::check("random", Precision::F32, [0.0; 2], &model, &reference);

    // A model rejects caches and prefixes of another device.
    let mut cache = reference.kv_cache();
    assert!(model.extend(&model.embed(&[1]).unwrap(), &mut cache).is_err());
    // It also rejects caches of another dtype, whose rows have another length.
    let half = Llama::random_on(&config, 3, Cuda::emulated(Precision::Bf16)).unwrap();
    let mut cache = half.kv_cache();
    let error = model.extend(&model.embed(&[1]).unwrap(), &mut cache).unwrap_err();
    assert!(error.to_string().contains("another model"), "{error}");
    let prefix = half.prefix(&[1, 2]).unwrap();
    let options = ForwardOptions { prefix: Some(&prefix), ..Default::default() };
    let x = model.embed(&[3]).unwrap().unsqueeze(0).unwrap();
    assert!(model.hidden_states(&x, &[1], &options).is_err());
    let odd = LlamaConfig { head_dim: 6, ..config };
    let message = Llama::random_on(&odd, 3, cuda).unwrap_err().to_string();
    assert!(message.contains("head_dim 6"), "{message}");
}

#[test]
fn f16_is_for_devices() {
    let dir = tempfile::tempdir().unwrap();
    support::write_twins(dir.path(), &Spec::default());
    let options = LlamaOptions { precision: Precision::F16, ..LlamaOptions::default() };
    let error = Llama::load(dir.path().join("gptq"), &options, &Device::Cpu).unwrap_err();
    assert!(error.to_string().contains("f16 on the CPU"), "{error}");
}
