//! Compares models on a device with the same models on the CPU in f32. Tests without
//! `--include-ignored` use the CPU as the device. With the feature `cuda` the same code runs on a
//! GPU:
//!
//! ```sh
//! cargo test --release -p glta-llm --features cuda --test devices -- --include-ignored
//! ```
//!
//! `emulated.rs` runs the CUDA kernels on the host.
#![allow(clippy::unwrap_used)]

#[cfg(feature = "cuda")]
#[path = "support/gpu.rs"]
mod gpu;
#[path = "support/same.rs"]
mod same;
mod support;

use candle_core::{Device, Tensor};
use glta_llm::{ForwardOptions, Llama, LlamaOptions, Precision};

use support::Spec;

fn precisions(device: &Device) -> &'static [Precision] {
    if device.is_cpu() {
        // In f32 the CPU itself is the reference.
        &[Precision::Bf16]
    } else {
        &[Precision::F32, Precision::Bf16, Precision::F16]
    }
}

/// Checks that errors are at most twice those of the same kernels on the host, which sum in another
/// order. `kind` is "gptq" or "plain".
fn check(device: &Device, spec: &Spec, measured: [f64; 2], kind: &str) {
    let dir = tempfile::tempdir().unwrap();
    support::write_twins(dir.path(), spec);
    let dir = dir.path().join(kind);
    let reference = Llama::load(&dir, &LlamaOptions::default(), &Device::Cpu).unwrap();
    for &precision in precisions(device) {
        let options = LlamaOptions { precision, ..LlamaOptions::default() };
        let model = Llama::load(&dir, &options, device).unwrap();
        let what = format!("{kind}, {} bits, {} wide", spec.bits, spec.hidden);
        same::check(&what, precision, measured.map(|error| 2.0 * error), &model, &reference);
    }
}

fn every_format(device: &Device) {
    let [small @ .., _] = Spec::formats();
    for (spec, measured) in &small {
        check(device, spec, *measured, "gptq");
    }
    let [(spec, measured), ..] = &small;
    check(device, spec, *measured, "plain");
}

fn larger_layers(device: &Device) {
    let [.., (spec, measured)] = Spec::formats();
    check(device, &spec, measured, "gptq");
}

fn small_model(device: &Device, precision: Precision) -> Llama {
    let dir = tempfile::tempdir().unwrap();
    support::write_twins(dir.path(), &Spec::default());
    let options = LlamaOptions { precision, ..LlamaOptions::default() };
    Llama::load(dir.path().join("gptq"), &options, device).unwrap()
}

fn states(model: &Llama, rows: usize) -> Vec<f32> {
    let ids: Vec<u32> = (0..rows as u32 * 9).map(|i| i % 90).collect();
    let x = model.embed(&ids).unwrap().reshape((rows, 9, 64)).unwrap();
    let y: Tensor = model.hidden_states(&x, &vec![9; rows], &ForwardOptions::default()).unwrap();
    y.flatten_all().unwrap().to_vec1().unwrap()
}

fn results_do_not_depend_on_the_run(device: &Device) {
    let model = small_model(device, Precision::Bf16);
    for rows in [1, 7] {
        assert!(states(&model, rows) == states(&model, rows));
    }
}

fn threads_share_a_model(device: &Device) {
    let model = small_model(device, Precision::F32);
    let expected = states(&model, 3);
    std::thread::scope(|scope| {
        let threads = [(); 4].map(|()| scope.spawn(|| states(&model, 3)));
        for thread in threads {
            assert!(thread.join().unwrap() == expected);
        }
    });
}

mod on_the_cpu {
    use candle_core::Device;

    #[test]
    fn every_format_equals_the_cpu() {
        super::every_format(&Device::Cpu);
    }

    #[test]
    fn larger_layers_equal_the_cpu() {
        super::larger_layers(&Device::Cpu);
    }

    #[test]
    fn results_do_not_depend_on_the_run() {
        super::results_do_not_depend_on_the_run(&Device::Cpu);
    }

    #[test]
    fn threads_share_a_model() {
        super::threads_share_a_model(&Device::Cpu);
    }
}

#[cfg(feature = "cuda")]
mod on_a_gpu {
    use crate::gpu;

    #[test]
    #[ignore = "needs an NVIDIA GPU; run with --ignored"]
    fn every_format_equals_the_cpu() {
        gpu::devices().iter().for_each(super::every_format);
    }

    #[test]
    #[ignore = "needs an NVIDIA GPU; run with --ignored"]
    fn larger_layers_equal_the_cpu() {
        gpu::devices().iter().for_each(super::larger_layers);
    }

    #[test]
    #[ignore = "needs an NVIDIA GPU; run with --ignored"]
    fn results_do_not_depend_on_the_run() {
        gpu::devices().iter().for_each(super::results_do_not_depend_on_the_run);
    }

    #[test]
    #[ignore = "needs an NVIDIA GPU; run with --ignored"]
    fn threads_share_a_model() {
        // With one stream per thread, one thread at a time can use a model.
        let [_, shared] = gpu::devices();
        super::threads_share_a_model(&shared);
    }
}
