//! Whole models through the kernels on the host, against the CPU.

#[path = "../../tests/support/same.rs"]
mod same;
#[allow(clippy::unwrap_used)]
#[path = "../../tests/support/mod.rs"]
mod support;

use super::{Accelerator, driver};
use crate::{Llama, LlamaConfig, LlamaOptions, Precision};
use candle_core::Device;
use support::Spec;

fn check(spec: &Spec, kinds: &[&str], precisions: &[Precision]) {
    let dir = tempfile::tempdir().unwrap();
    support::write_twins(dir.path(), spec);
    for kind in kinds {
        let dir = dir.path().join(kind);
        let reference = Llama::load(&dir, &LlamaOptions::default(), &Device::Cpu).unwrap();
        for &precision in precisions {
            let options = LlamaOptions { precision, ..LlamaOptions::default() };
            let accelerator = Accelerator::emulated(precision);
            let model = Llama::load_with(&dir, &options, Some(accelerator)).unwrap();
            same::check(&format!("{kind}, {} bits", spec.bits), precision, &model, &reference);
        }
    }
}

const ALL: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::F16];

#[test]
fn every_precision() {
    if driver::available("every_precision") {
        let spec = Spec { act_order: true, sym: false, bias: true, ..Spec::default() };
        check(&spec, &["gptq", "plain"], &ALL);
    }
}

#[test]
fn every_format() {
    if !driver::available("every_format") {
        return;
    }
    for (bits, group, act_order, tied) in
        [(2, 48, true, true), (3, 0, false, false), (8, 32, false, true), (4, 0, true, false)]
    {
        let spec = Spec { bits, group, act_order, tied, sym: bits == 8, ..Spec::default() };
        check(&spec, &["gptq"], &[Precision::F32]);
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
    check(&spec, &["gptq"], &[Precision::F32]);
}

#[test]
fn random_models_and_what_is_refused() {
    if !driver::available("random_models_and_what_is_refused") {
        return;
    }
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
    let accelerator = Accelerator::emulated(Precision::F32);
    let model = Llama::random_with(&config, 3, Some(accelerator.clone())).unwrap();
    let reference = Llama::random(&config, 3, &Device::Cpu).unwrap();
    same::check("random", Precision::F32, &model, &reference);

    // Caches and prefixes of one device are not of another.
    let mut cache = reference.kv_cache();
    assert!(model.extend(&model.embed(&[1]).unwrap(), &mut cache).is_err());
    let odd = LlamaConfig { head_dim: 6, ..config };
    let message = Llama::random_with(&odd, 3, Some(accelerator)).unwrap_err().to_string();
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
