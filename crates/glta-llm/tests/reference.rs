//! Compares checkpoints in `models` of the folder `GLTA_DATA` with their references: hidden states,
//! logits, input gradient and greedy continuation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::path::Path;

use candle_core::{DType, Device, Tensor, Var, safetensors};
use glta_llm::{
    ForwardOptions, GenerateEvent, GenerateOptions, Llama, LlamaOptions, Precision, SimdLevel,
};

#[path = "support/real_data.rs"]
mod real_data;

use real_data::real_data;

fn relative_error(got: &Tensor, expected: &Tensor) -> f64 {
    let got: Vec<f32> = got.flatten_all().unwrap().to_vec1().unwrap();
    let expected: Vec<f32> = expected.flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(got.len(), expected.len());
    let norm: f64 = expected.iter().map(|&x| f64::from(x).powi(2)).sum();
    let error: f64 =
        got.iter().zip(&expected).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    (error / norm).sqrt()
}

fn ids(reference: &HashMap<String, Tensor>, name: &str) -> Vec<u32> {
    let tensor = reference[name].to_dtype(DType::U32).unwrap();
    tensor.to_vec1().unwrap()
}

/// Compares all values of the reference by relative L2 error. The greedy continuation must be equal
/// in f32; rounding to bf16 may change the most likely token.
fn check(dir: &Path, options: &LlamaOptions, bf16_bound: f64) {
    let name = dir.file_name().unwrap().to_string_lossy().into_owned();
    let model = Llama::load(dir, options, &Device::Cpu).unwrap();
    let reference = safetensors::load(dir.join("reference.safetensors"), &Device::Cpu).unwrap();
    let precision = options.precision;
    let bound = if precision == Precision::F32 { 1e-5 } else { bf16_bound };
    let mut worst = BTreeMap::new();
    let mut note = |what: &'static str, error: f64| {
        assert!(error < bound, "{name}: {what}: relative error {error:e}");
        let worst = worst.entry(what).or_insert(error);
        *worst = worst.max(error);
    };
    let prompts: Vec<Vec<u32>> =
        (0..4).map(|p| ids(&reference, &format!("p{p}.input_ids"))).collect();
    for (p, prompt) in prompts.iter().enumerate() {
        let embeds = model.embed(prompt).unwrap().unsqueeze(0).unwrap();
        let hidden = model
            .hidden_states(&embeds, &[prompt.len()], &ForwardOptions::default())
            .unwrap()
            .squeeze(0)
            .unwrap();
        note("hidden states", relative_error(&hidden, &reference[&format!("p{p}.hidden_states")]));
        let expected = &reference[&format!("p{p}.logits")];
        let rows = expected.dim(0).unwrap();
        let last = hidden.narrow(0, prompt.len() - rows, rows).unwrap();
        note("logits", relative_error(&model.logits(&last).unwrap(), expected));
    }

    let embeds = reference["grad.inputs_embeds"].unsqueeze(0).unwrap();
    let length = embeds.dim(1).unwrap();
    for recompute in [false, true] {
        let var = Var::from_tensor(&embeds).unwrap();
        let options = ForwardOptions { recompute, ..Default::default() };
        let hidden = model.hidden_states(&var, &[length], &options).unwrap();
        let cotangent = reference["grad.cotangent"].unsqueeze(0).unwrap();
        let loss = (hidden * cotangent).unwrap().sum_all().unwrap();
        let grads = loss.backward().unwrap();
        let grad = grads.get(&var).expect("a gradient at the embeddings");
        note("input gradient", relative_error(grad, &reference["grad.d_inputs_embeds"]));
    }

    if reference.contains_key("p0.greedy_ids") {
        let options =
            GenerateOptions { max_new_tokens: 24, ignore_eos: true, ..Default::default() };
        let mut events = 0;
        let texts = model
            .generate_with(&prompts, &options, &mut |_: &GenerateEvent| {
                events += 1;
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(events, 4 * 24);
        let equal = texts
            .iter()
            .enumerate()
            .filter(|(p, text)| **text == ids(&reference, &format!("p{p}.greedy_ids")))
            .count();
        assert!(equal == 4 || precision == Precision::Bf16, "{name}: {texts:?}");
        println!("{name}: {precision:?}: {equal} of 4 continuations equal");
    }
    println!("{name}: {precision:?}: relative errors {worst:?}");
}

#[test]
#[ignore = "needs GLTA_DATA"]
fn tiny_checkpoints_match_their_references() {
    let mut found = 0;
    for entry in std::fs::read_dir(real_data("models/tiny-gptq")).unwrap() {
        let dir = entry.unwrap().path();
        for level in SimdLevel::supported() {
            for precision in [Precision::F32, Precision::Bf16] {
                let options = LlamaOptions { simd: Some(level), precision, ..Default::default() };
                check(&dir, &options, 2e-2);
            }
        }
        found += 1;
    }
    assert_eq!(found, 13);
}

#[test]
#[ignore = "needs GLTA_DATA"]
fn smollm2_matches_its_reference() {
    let model = real_data("models/smollm2-135m-gptq");
    for precision in [Precision::F32, Precision::Bf16] {
        let options = LlamaOptions { precision, ..Default::default() };
        // Rounding errors add up over thirty layers.
        check(&model, &options, 3e-2);
    }
}
