//! Tests the complete quantiser: its checkpoints load, in every format, and stay close to the
//! original model.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod support;

use std::ops::ControlFlow;
use std::path::Path;

use candle_core::{Device, Tensor};
use glta_llm::{
    Error, ForwardOptions, Llama, LlamaOptions, QuantizeEvent, QuantizeOptions, quantize,
    quantize_with,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use support::Spec;

fn load(dir: &Path) -> Llama {
    Llama::load(dir, &LlamaOptions::default(), &Device::Cpu).unwrap()
}

fn hidden(model: &Llama, ids: &[u32]) -> Vec<f32> {
    let x = model.embed(ids).unwrap().unsqueeze(0).unwrap();
    let out: Tensor = model.hidden_states(&x, &[ids.len()], &ForwardOptions::default()).unwrap();
    out.flatten_all().unwrap().to_vec1().unwrap()
}

fn difference(a: &[f32], b: &[f32]) -> f64 {
    let size: f64 = b.iter().map(|&v| f64::from(v).powi(2)).sum();
    let error: f64 = a.iter().zip(b).map(|(&a, &b)| f64::from(a - b).powi(2)).sum();
    (error / size).sqrt()
}

fn texts(count: usize, length: usize) -> Vec<Vec<u32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    (0..count).map(|_| (0..length).map(|_| rng.random_range(0..96)).collect()).collect()
}

#[test]
fn every_format_comes_out_close_to_its_source() {
    let spec = Spec { bits: 8, bias: true, tied: false, ..Spec::default() };
    let dir = tempfile::tempdir().unwrap();
    support::write_twins(dir.path(), &spec);
    std::fs::write(dir.path().join("plain/tokenizer_config.json"), "{}").unwrap();
    let source = dir.path().join("plain");
    let ids: Vec<u32> = (0..40).map(|i| i * 37 % 96).collect();
    let expected = hidden(&load(&source), &ids);
    let mut errors = Vec::new();
    for (bits, group_size, desc_act, sym) in [
        (8, Some(32), false, true),
        (4, Some(32), false, true),
        (4, Some(16), true, false),
        (3, None, true, true),
        (2, Some(32), false, false),
    ] {
        let options = QuantizeOptions { bits, group_size, desc_act, sym, ..Default::default() };
        let out = dir.path().join(format!("out{}", errors.len()));
        let mut events = 0;
        quantize_with(&source, &texts(16, 60), &options, &out, &mut |event: &QuantizeEvent| {
            assert!(event.relative_error.is_finite() && event.layers == 2);
            events += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(events, 14);
        assert!(out.join("tokenizer_config.json").exists());
        assert!(
            !std::fs::read_dir(&out).unwrap().any(|e| e
                .unwrap()
                .path()
                .extension()
                .is_some_and(|x| x == "tmp"))
        );
        // The weights have the default permissions of a new file.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |name: &str| out.join(name).metadata().unwrap().permissions().mode();
            assert_eq!(mode("model.safetensors"), mode("config.json"));
        }
        let model = load(&out);
        let config = model.config().quantization.clone().unwrap();
        assert_eq!((config.bits, config.group_size, config.desc_act), (bits, group_size, desc_act));
        errors.push(difference(&hidden(&model, &ids), &expected));
    }
    println!("{errors:?}");
    assert!(errors[0] < 0.02 && errors[1] < 0.2 && errors[2] < 0.2, "{errors:?}");
    assert!(errors.iter().all(|e| *e < 1.2), "{errors:?}");
}

#[test]
fn a_quantised_source_is_taken_at_its_weights() {
    let spec = Spec { act_order: true, ..Spec::default() };
    let dir = tempfile::tempdir().unwrap();
    support::write_twins(dir.path(), &spec);
    let run = |kind: &str| {
        let out = dir.path().join(format!("from-{kind}"));
        let options = QuantizeOptions { group_size: Some(32), ..Default::default() };
        quantize(dir.path().join(kind), &texts(8, 30), &options, &out).unwrap();
        std::fs::read(out.join("model.safetensors")).unwrap()
    };
    // Embedding and norms keep their dtype, so models are compared.
    run("gptq");
    run("plain");
    let ids: Vec<u32> = (0..20).collect();
    let (a, b) = (load(&dir.path().join("from-gptq")), load(&dir.path().join("from-plain")));
    assert!(difference(&hidden(&a, &ids), &hidden(&b, &ids)) < 0.05);
}

#[test]
fn bad_requests_are_refused_and_leave_no_model() {
    let dir = tempfile::tempdir().unwrap();
    support::write_twins(dir.path(), &Spec::default());
    let source = dir.path().join("plain");
    let out = dir.path().join("out");
    let run = |options: &QuantizeOptions, texts: &[Vec<u32>]| {
        quantize_with(&source, texts, options, &out, &mut |e: &QuantizeEvent| {
            if e.module == "mlp.up_proj" {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
    };
    let good = QuantizeOptions::default();
    assert!(matches!(run(&good, &texts(2, 10)), Err(Error::Cancelled)));
    assert!(!out.join("model.safetensors").exists() && !out.join("config.json").exists());
    assert!(run(&good, &[]).is_err());
    assert!(run(&good, &[vec![96]]).is_err());
    let bits = QuantizeOptions { bits: 5, ..good.clone() };
    assert!(run(&bits, &texts(2, 10)).is_err());
}

#[test]
fn nothing_is_replaced_and_what_must_fail_fails_first() {
    let dir = tempfile::tempdir().unwrap();
    support::write_twins(dir.path(), &Spec::default());
    let source = dir.path().join("plain");
    let listed = || {
        let names = std::fs::read_dir(&source).unwrap().map(|e| e.unwrap().file_name());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    };
    let before = (listed(), std::fs::read(source.join("model.safetensors")).unwrap());
    let message = |options: &QuantizeOptions, out: &Path| {
        let mut layers = 0;
        let result =
            quantize_with(&source, &texts(2, 40), options, out, &mut |_: &QuantizeEvent| {
                layers += 1;
                ControlFlow::Continue(())
            });
        assert_eq!(layers, 0, "refused before the first layer");
        result.unwrap_err().to_string()
    };
    let options = QuantizeOptions::default();
    // Name the same folder by two paths.
    for out in [source.clone(), source.join("../plain/.")] {
        let message = message(&options, &out);
        assert!(message.contains("folder of the model itself"), "{message}");
    }
    assert_eq!((listed(), std::fs::read(source.join("model.safetensors")).unwrap()), before);
    let other = dir.path().join("gptq");
    assert!(message(&options, &other).contains("model.safetensors"));
    let file = source.join("config.json");
    assert!(message(&options, &file).contains("this is a file"));
    // Remove a tensor of the last layer, and add a tensor that the model does not use.
    let out = dir.path().join("out");
    let (_, tensors) = support::tensors(&Spec::default());
    let mut short = tensors.clone();
    short.remove("model.layers.1.mlp.down_proj.weight");
    support::write(&source, &support::plain_config(&Spec::default()), &short);
    assert!(message(&options, &out).contains("model.layers.1.mlp.down_proj.weight"));
    let mut long = tensors.clone();
    let extra = tensors["model.norm.weight"].clone();
    long.insert("model.layers.1.self_attn.q_norm.weight".into(), extra);
    support::write(&source, &support::plain_config(&Spec::default()), &long);
    assert!(message(&options, &out).contains("q_norm"));
    assert!(!out.join("model.safetensors").exists());
}
