//! Compares model families other than LLaMA, and rotary embeddings, with transformers: hidden
//! states, logits and input gradients of tiny random models (`transformers/make_models.py`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod support;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor, Var, safetensors};
use glta_llm::{ForwardOptions, Llama, LlamaConfig, LlamaOptions, RopeScaling};
use serde_json::{Value, json};

use support::Tensors;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transformers")
}

/// The output of the script: configurations, shapes, and the values of transformers.
struct Reference {
    tokens: u32,
    models: Value,
    outputs: HashMap<String, Tensor>,
}

fn reference() -> Reference {
    let text = std::fs::read_to_string(fixtures().join("models.json")).unwrap();
    let described: Value = serde_json::from_str(&text).unwrap();
    let outputs = safetensors::load(fixtures().join("models.safetensors"), &Device::Cpu).unwrap();
    Reference {
        tokens: described["tokens"].as_u64().unwrap() as u32,
        models: described["models"].clone(),
        outputs,
    }
}

fn splitmix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Returns numbers from -1 to 1 that depend on a name, as in the script.
fn uniform(name: &str, count: usize) -> Vec<f32> {
    let seed = name.bytes().fold(0xCBF2_9CE4_8422_2325u64, |seed, byte| {
        (seed ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
    });
    let bits = |i: usize| splitmix(seed.wrapping_add(i as u64)) >> 40;
    (0..count).map(|i| (bits(i) as f64 / f64::from(1 << 23) - 1.0) as f32).collect()
}

fn weights(model: &Value) -> Tensors {
    let bare = model["config"].get("architectures").is_some();
    let mut tensors = Tensors::new();
    for (name, shape) in model["tensors"].as_object().unwrap() {
        let shape: Vec<usize> =
            shape.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
        let full = if bare { format!("model.{name}") } else { name.clone() };
        let (offset, scale) = if full.contains("norm") {
            (1.0, 0.25)
        } else if full.contains("embed") || full.contains("lm_head") {
            (0.0, 0.5)
        } else {
            (0.0, 0.25)
        };
        let values = uniform(&full, shape.iter().product());
        let values: Vec<f32> = values.into_iter().map(|u| offset + scale * u).collect();
        let bytes = support::f32_bytes(&values);
        tensors.insert(name.clone(), (::safetensors::Dtype::F32, shape, bytes));
    }
    tensors
}

fn load(config: &Value, tensors: &Tensors) -> Llama {
    let dir = tempfile::tempdir().unwrap();
    support::write(dir.path(), config, tensors);
    Llama::load(dir.path(), &LlamaOptions::default(), &Device::Cpu).unwrap()
}

fn relative_error(got: &Tensor, expected: &Tensor) -> f64 {
    let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (got, expected) = (values(got), values(expected));
    assert_eq!(got.len(), expected.len());
    let norm: f64 = expected.iter().map(|&x| f64::from(x).powi(2)).sum();
    let error: f64 =
        got.iter().zip(&expected).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    (error / norm).sqrt()
}

fn ids(tokens: u32) -> Vec<u32> {
    (0..tokens).map(|i| i * 7 % 45 + 3).collect()
}

/// Returns the relative errors of hidden states, logits (0 without an output layer) and input
/// gradient.
fn compare(reference: &Reference, name: &str, model: &Llama) -> [f64; 3] {
    let expected = |part: &str| &reference.outputs[&format!("{name}.{part}")];
    let ids = ids(reference.tokens);
    let embeds = Var::from_tensor(&model.embed(&ids).unwrap().unsqueeze(0).unwrap()).unwrap();
    let mut gradients = Vec::new();
    let mut states = None;
    for recompute in [false, true] {
        let options = ForwardOptions { recompute, ..Default::default() };
        let hidden = model.hidden_states(&embeds, &[ids.len()], &options).unwrap();
        let cotangent = uniform("cotangent", hidden.elem_count());
        let cotangent = Tensor::from_vec(cotangent, hidden.shape(), &Device::Cpu).unwrap();
        let loss = (&hidden * cotangent).unwrap().sum_all().unwrap();
        let grads = loss.backward().unwrap();
        let gradient = grads.get(&embeds).expect("a gradient").squeeze(0).unwrap();
        gradients.push(relative_error(&gradient, expected("gradient")));
        states = Some(hidden.detach().squeeze(0).unwrap());
    }
    let states = states.unwrap();
    let logits = reference.outputs.get(&format!("{name}.logits")).map_or(0.0, |logits| {
        let rows = logits.dim(0).unwrap();
        let last = states.narrow(0, ids.len() - rows, rows).unwrap();
        relative_error(&model.logits(&last).unwrap(), logits)
    });
    let gradient = gradients[0].max(gradients[1]);
    [relative_error(&states, expected("hidden_states")), logits, gradient]
}

#[test]
fn every_family_matches_transformers() {
    let reference = reference();
    let models = reference.models.as_object().unwrap();
    assert_eq!(models.len(), 17);
    for (name, model) in models {
        let llama = load(&model["config"], &weights(model));
        let errors = compare(&reference, name, &llama);
        println!("{name}: {errors:?}");
        assert!(errors.iter().all(|&error| error < 1e-5), "{name}: {errors:?}");
        if name.ends_with("bare") && name.starts_with("mistral") {
            let states = llama.layer_hidden_states(&[1], 2).unwrap();
            let message = llama.logits(&states).unwrap_err().to_string();
            assert!(message.contains("lm_head"), "{message}");
        }
    }
}

#[test]
fn the_older_spelling_of_the_rotary_settings_gives_the_same() {
    let reference = reference();
    for name in ["llama", "llama-linear", "llama-llama3", "llama-yarn", "llama-dynamic"] {
        let model = &reference.models[name];
        let mut config = model["config"].clone();
        let mut rope = config.as_object_mut().unwrap().remove("rope_parameters").unwrap();
        // Theta is at the top level, or has its old name.
        if name == "llama-yarn" {
            config["rope_scaling"] = rope;
        } else {
            config["rope_theta"] = rope.as_object_mut().unwrap().remove("rope_theta").unwrap();
            let kind = rope.as_object_mut().unwrap().remove("rope_type").unwrap();
            rope["type"] = kind;
            config["rope_scaling"] = rope;
        }
        let errors = compare(&reference, name, &load(&config, &weights(model)));
        assert!(errors.iter().all(|&error| error < 1e-5), "{name}: {errors:?}");
    }
}

/// Attention windows hold for single tokens with a cache, in a batch, and with a prefix.
#[test]
fn windows_hold_across_caches_prefixes_and_batches() {
    let reference = reference();
    for name in ["mistral-window", "qwen2-window", "qwen3"] {
        let model = &reference.models[name];
        let llama = load(&model["config"], &weights(model));
        let expected = &reference.outputs[&format!("{name}.hidden_states")];
        let ids = ids(reference.tokens);
        let embeds = llama.embed(&ids).unwrap();
        let mut cache = llama.kv_cache();
        for (i, piece) in [(0, 3), (3, 1), (4, 20), (24, 20)] {
            let got = llama.extend(&embeds.narrow(0, i, piece).unwrap(), &mut cache).unwrap();
            let error = relative_error(&got, &expected.narrow(0, i, piece).unwrap());
            assert!(error < 1e-5, "{name}: {i}: {error:e}");
        }
        for prefix in [5, 32] {
            let shared = llama.prefix(&ids[..prefix]).unwrap();
            let rest = embeds.narrow(0, prefix, ids.len() - prefix).unwrap();
            let batch = Tensor::stack(&[&rest, &rest], 0).unwrap();
            let options = ForwardOptions { prefix: Some(&shared), ..Default::default() };
            let len = ids.len() - prefix;
            let got = llama.hidden_states(&batch, &[len, len - 2], &options).unwrap();
            let error =
                relative_error(&got.get(0).unwrap(), &expected.narrow(0, prefix, len).unwrap());
            assert!(error < 1e-5, "{name}: prefix {prefix}: {error:e}");
        }
    }
}

fn parsed(edit: impl FnOnce(&mut Value)) -> Result<LlamaConfig, String> {
    let mut config = json!({
        "model_type": "llama", "vocab_size": 48, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64,
    });
    edit(&mut config);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    LlamaConfig::from_dir(dir.path()).map_err(|e| e.to_string())
}

#[test]
fn contexts_follow_the_scaling() {
    let context = |edit: fn(&mut Value)| parsed(edit).unwrap().max_position_embeddings;
    let scaled = |kind: &str, more: Value| {
        let mut rope = json!({"rope_type": kind, "factor": 4.0});
        rope.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        parsed(|c| c["rope_scaling"] = rope).unwrap().max_position_embeddings
    };
    assert_eq!(scaled("linear", json!({})), 256);
    assert_eq!(scaled("dynamic", json!({})), 64);
    assert_eq!(scaled("yarn", json!({})), 256);
    assert_eq!(scaled("yarn", json!({"original_max_position_embeddings": 16})), 64);
    let stated = context(|c| {
        c["rope_scaling"] = json!({"type": "linear", "factor": 4.0});
        c["max_sequence_length"] = json!(100);
    });
    assert_eq!(stated, 100);
    // The window does not limit the context.
    let window = |more: Value| {
        parsed(|c| {
            c["model_type"] = json!("mistral");
            c["num_key_value_heads"] = json!(2);
            c.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        })
        .unwrap()
    };
    let config = window(json!({"sliding_window": 16}));
    assert_eq!(config.max_position_embeddings, 64);
    assert_eq!(config.sliding_window.unwrap().tokens, 16);
    assert_eq!(window(json!({})).sliding_window.unwrap().tokens, 4096);
    assert_eq!(window(json!({"sliding_window": null})).sliding_window, None);
    let off = window(json!({"sliding_window": 16, "use_sliding_window": false}));
    assert_eq!(off.sliding_window, None);
}

#[test]
fn rotary_settings_that_contradict_each_other_are_refused() {
    let message = |edit: fn(&mut Value)| parsed(edit).unwrap_err();
    let cases: [(String, &[&str]); 5] = [
        (
            message(|c| {
                c["rope_theta"] = json!(1e4);
                c["rope_scaling"] = json!({"rope_type": "default", "rope_theta": 5e5});
            }),
            &["config.json", "rope_theta", "500000", "10000"],
        ),
        (
            message(|c| {
                c["rope_parameters"] = json!({"rope_type": "linear", "factor": 2.0});
                c["rope_scaling"] = json!({"rope_type": "linear", "factor": 4.0});
            }),
            &["rope_scaling.factor", "rope_parameters.factor", "2.0", "4.0"],
        ),
        (
            message(|c| c["rope_scaling"] = json!({"rope_type": "yarn", "type": "linear"})),
            &["rope_type", "yarn", "linear"],
        ),
        (
            message(|c| c["rope_scaling"] = json!({"type": "longrope", "factor": 2.0})),
            &["config.json", "longrope", "yarn"],
        ),
        (message(|c| c["model_type"] = json!("gemma2")), &["config.json", "gemma2", "qwen3"]),
    ];
    for (message, parts) in cases {
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
    // Equal values are accepted, and so is a dictionary with only the base.
    let theta = |edit: fn(&mut Value)| parsed(edit).unwrap().rope_theta;
    assert_eq!(theta(|c| c["rope_scaling"] = json!({"rope_theta": 5e5, "type": "default"})), 5e5);
    let both = parsed(|c| {
        c["rope_theta"] = json!(5e5);
        c["rope_parameters"] = json!({"rope_theta": 500000, "rope_type": "linear", "factor": 2});
    });
    assert_eq!(both.unwrap().rope_scaling, Some(RopeScaling::Linear { factor: 2.0 }));
}

#[test]
fn other_names_of_the_same_model_are_read() {
    let biases = |config: LlamaConfig| [config.attention_bias, config.output_bias, config.mlp_bias];
    let of = |edit: fn(&mut Value)| biases(parsed(edit).unwrap());
    assert_eq!(of(|c| c["model_type"] = json!("aquila")), [false; 3]);
    let renamed = of(|c| {
        c["model_type"] = json!("my-model");
        c["architectures"] = json!(["LlamaForCausalLM"]);
    });
    assert_eq!(renamed, [false; 3]);
    assert_eq!(of(|c| c["model_type"] = json!("internlm")), [true, true, false]);
    let absent = of(|c| {
        c.as_object_mut().unwrap().remove("model_type");
        c["architectures"] = json!(["Qwen2ForCausalLM"]);
        c["num_key_value_heads"] = json!(4);
    });
    assert_eq!(absent, [true, false, false]);
}
