//! The model on a CUDA device against the model on the CPU: one body for every
//! format and precision. Says so where there is no device. (The same body runs in
//! the crate with the kernels on the host.)
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "support/same.rs"]
mod same;
mod support;

use candle_core::{Device, Tensor};
use glta_llm::{Llama, LlamaOptions, Precision};
use support::Spec;

fn cuda() -> Option<Device> {
    match Device::new_cuda(0) {
        Ok(device) => Some(device),
        Err(error) => {
            println!("skipped: no CUDA device ({error})");
            None
        }
    }
}

/// `kind` is "gptq" or "plain".
fn check(device: &Device, spec: &Spec, kind: &str, precisions: &[Precision]) {
    let dir = tempfile::tempdir().unwrap();
    support::write_twins(dir.path(), spec);
    let dir = dir.path().join(kind);
    let reference = Llama::load(&dir, &LlamaOptions::default(), &Device::Cpu).unwrap();
    for &precision in precisions {
        let options = LlamaOptions { precision, ..LlamaOptions::default() };
        let model = Llama::load(&dir, &options, device).unwrap();
        same::check(&format!("{kind}, {} bits", spec.bits), precision, &model, &reference);
    }
}

const ALL: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::F16];

#[test]
fn every_format_equals_the_cpu() {
    let Some(device) = cuda() else { return };
    let base = Spec::default();
    for (bits, group, act_order, sym, tied) in [
        (2, 48, true, false, true),
        (3, 0, false, false, false),
        (4, 32, true, false, true),
        (4, 0, true, true, false),
        (8, 32, false, true, true),
    ] {
        let spec = Spec { bits, group, act_order, sym, tied, bias: act_order, ..base.clone() };
        check(&device, &spec, "gptq", &ALL);
    }
    check(&device, &base, "plain", &ALL);
}

/// Heads of 128, several groups, more panels than multiprocessors.
#[test]
fn larger_layers_equal_the_cpu() {
    let Some(device) = cuda() else { return };
    let spec = Spec {
        vocab: 1000,
        hidden: 512,
        inner: 5504,
        heads: 4,
        kv_heads: 2,
        head_dim: 128,
        group: 128,
        ..Spec::default()
    };
    check(&device, &spec, "gptq", &ALL);
}

#[test]
fn results_do_not_depend_on_the_run() {
    let Some(device) = cuda() else { return };
    let dir = tempfile::tempdir().unwrap();
    support::write_twins(dir.path(), &Spec::default());
    let options = LlamaOptions { precision: Precision::Bf16, ..LlamaOptions::default() };
    let model = Llama::load(dir.path().join("gptq"), &options, &device).unwrap();
    let run = |rows: usize| -> Vec<f32> {
        let ids: Vec<u32> = (0..rows as u32 * 9).map(|i| i % 90).collect();
        let x = model.embed(&ids).unwrap().reshape((rows, 9, 64)).unwrap();
        let options = glta_llm::ForwardOptions::default();
        let y: Tensor = model.hidden_states(&x, &vec![9; rows], &options).unwrap();
        y.flatten_all().unwrap().to_vec1().unwrap()
    };
    for rows in [1, 7] {
        assert!(run(rows) == run(rows));
    }
}
