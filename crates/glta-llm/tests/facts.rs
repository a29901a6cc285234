//! Checks settings that several files contain. They are read as transformers reads them, and
//! contradictions are errors that name both places. Files whose content does not match their name
//! are errors.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::Path;

use candle_core::{Device, Tensor};
use glta_llm::{ForwardOptions, Llama, LlamaConfig, LlamaOptions};
use safetensors::Dtype;
use serde_json::{Value, json};

use support::{Spec, Tensors};

fn load(dir: &Path) -> Result<Llama, String> {
    Llama::load(dir, &LlamaOptions::default(), &Device::Cpu).map_err(|e| e.to_string())
}

fn states(model: &Llama) -> Vec<f32> {
    let x = model.embed(&[1, 20, 5, 7]).unwrap().unsqueeze(0).unwrap();
    let out: Tensor = model.hidden_states(&x, &[4], &ForwardOptions::default()).unwrap();
    out.flatten_all().unwrap().to_vec1().unwrap()
}

fn same(a: &Llama, b: &Llama) -> bool {
    let (a, b) = (states(a), states(b));
    let norm: f64 = b.iter().map(|&v| f64::from(v).powi(2)).sum();
    let error: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    (error / norm).sqrt() < 1e-5
}

/// Writes a GPTQ model and a plain model with equal weights; `edit` changes the files of the first.
fn check(
    spec: &Spec,
    edit: impl FnOnce(&mut Value, &mut Tensors, &Path),
) -> (Result<Llama, String>, Llama) {
    let dir = tempfile::tempdir().unwrap();
    let (mut quantized, plain) = support::tensors(spec);
    let (twin, gptq) = (dir.path().join("plain"), dir.path().join("gptq"));
    support::write(&twin, &support::plain_config(spec), &plain);
    let mut config = support::quantized_config(spec);
    std::fs::create_dir(&gptq).unwrap();
    edit(&mut config, &mut quantized, &gptq);
    support::write(&gptq, &config, &quantized);
    (load(&gptq), load(&twin).unwrap())
}

fn write_json(dir: &Path, name: &str, value: &Value) {
    std::fs::write(dir.join(name), value.to_string()).unwrap();
}

#[test]
fn zero_points_under_the_wrong_label_are_read_by_what_symmetry_says() {
    for bits in [2, 3, 4, 8] {
        for v2 in [false, true] {
            let spec = Spec { bits, v2, ..Spec::default() };
            let (model, twin) = check(&spec, |config, _, _| {
                let label = if v2 { "gptq" } else { "gptq_v2" };
                config["quantization_config"]["checkpoint_format"] = json!(label);
            });
            assert!(same(&model.unwrap(), &twin), "{bits} bits");
        }
    }
    // The zero points of a group do not show the format, so the label applies, whatever `sym` is.
    let spec = Spec { sym: false, ..Spec::default() };
    let (model, twin) = check(&spec, |config, _, _| {
        config["quantization_config"]["sym"] = json!(true);
    });
    assert!(same(&model.unwrap(), &twin));
}

#[test]
fn the_two_places_of_the_quantization_are_merged_or_refused() {
    let spec = Spec { v2: true, sym: false, act_order: true, ..Spec::default() };
    // Each file has the keys that the other lacks.
    let (model, twin) = check(&spec, |config, _, dir| {
        let block = config["quantization_config"].as_object_mut().unwrap();
        let format = block.remove("checkpoint_format").unwrap();
        let size = block.remove("group_size").unwrap();
        write_json(
            dir,
            "quantize_config.json",
            &json!({"checkpoint_format": format, "group_size": size, "bits": 4, "desc_act": false}),
        );
    });
    assert!(same(&model.unwrap(), &twin));
    for (key, value) in [
        ("bits", json!(8)),
        ("group_size", json!(64)),
        ("checkpoint_format", json!("gptq")),
        ("lm_head", json!(true)),
        ("quant_method", json!("bitsandbytes")),
    ] {
        let (model, _) = check(&spec, |config, _, dir| {
            let mut block = config["quantization_config"].clone();
            block["lm_head"] = json!(false);
            config["quantization_config"] = block.clone();
            block[key] = value;
            write_json(dir, "quantize_config.json", &block);
        });
        let message = model.unwrap_err();
        let named = key == "quant_method" || message.contains("config.json: ");
        assert!(named && message.contains("quantize_config.json"), "{message}");
        assert!(message.contains(key), "{message}");
    }
    let (model, _) = check(&spec, |config, _, _| {
        config["quantization_config"]["format"] = json!("gptq");
    });
    let message = model.unwrap_err();
    assert!(message.contains("checkpoint_format") && message.contains("`format`"), "{message}");
}

#[test]
fn gptq_weights_without_a_description_say_what_to_write() {
    for (bits, group) in [(4, 32), (2, 16), (8, 0), (3, 32)] {
        let (model, _) = check(&Spec { bits, group, ..Spec::default() }, |config, _, _| {
            config.as_object_mut().unwrap().remove("quantization_config");
        });
        let message = model.unwrap_err();
        let group = if group == 0 { -1 } else { group as i64 };
        for part in [
            ".qweight".to_owned(),
            "quantization_config".to_owned(),
            "quantize_config.json".to_owned(),
            format!("\"bits\": {bits}, \"group_size\": {group}"),
        ] {
            assert!(message.contains(&part), "{message} lacks {part}");
        }
    }
    // Repeat the check with exchanged files.
    let dir = tempfile::tempdir().unwrap();
    let (_, plain) = support::tensors(&Spec::default());
    support::write(dir.path(), &support::quantized_config(&Spec::default()), &plain);
    let message = load(dir.path()).unwrap_err();
    assert!(message.contains("plain weight") && message.contains("q_proj.weight"), "{message}");
}

#[test]
fn single_layers_may_differ() {
    let spec = Spec { layers: 3, ..Spec::default() };
    let other = Spec { bits: 8, group: 16, ..spec.clone() };
    let (eight, eight_plain) = support::tensors(&other);
    let dir = tempfile::tempdir().unwrap();
    let (mut quantized, mut plain) = support::tensors(&spec);
    let of = |name: &str, module: &str| name.starts_with(&format!("{module}."));
    // Layer 1 has 8 bits, and the down projection of layer 0 is plain.
    let down = "model.layers.0.mlp.down_proj";
    quantized.retain(|name, _| !name.starts_with("model.layers.1.") && !of(name, down));
    plain.retain(|name, _| !name.starts_with("model.layers.1."));
    let of_layer = |name: &String| name.starts_with("model.layers.1.");
    quantized.extend(eight.into_iter().filter(|(name, _)| of_layer(name)));
    plain.extend(eight_plain.into_iter().filter(|(name, _)| of_layer(name)));
    let weight = format!("{down}.weight");
    quantized.insert(weight.clone(), plain[&weight].clone());
    let mut config = support::quantized_config(&spec);
    // The first matching pattern in the order of the file applies.
    let rules = r#"{"-:.*\\.0\\.mlp\\.down_proj": {}, "+:model\\.layers\\.1\\.": {"bits": 8, "group_size": 16},
                    ".*mlp": {"bits": 4}, ".*": {"desc_act": false}}"#;
    config["quantization_config"]["dynamic"] = serde_json::from_str(rules).unwrap();
    let text = config.to_string();
    let sorted = config["quantization_config"]["dynamic"].to_string();
    assert!(text.contains(&sorted));
    let (gptq, twin) = (dir.path().join("gptq"), dir.path().join("plain"));
    support::write(&gptq, &config, &quantized);
    std::fs::write(gptq.join("config.json"), text.replace(&sorted, rules)).unwrap();
    support::write(&twin, &support::plain_config(&spec), &plain);
    let model = load(&gptq).unwrap();
    assert!(same(&model, &load(&twin).unwrap()));
    let rules = &model.config().quantization.as_ref().unwrap().dynamic;
    assert_eq!(rules.len(), 4);
    assert!(!rules[0].quantized && rules[1].bits == Some(8));

    // Repeat the check with a list of the quantised modules.
    let modules = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"];
    let (mut quantized, plain) = support::tensors(&spec);
    quantized.retain(|name, _| !name.contains(".mlp."));
    for (name, tensor) in plain.iter().filter(|(name, _)| name.contains(".mlp.")) {
        quantized.insert(name.clone(), tensor.clone());
    }
    let mut config = support::quantized_config(&spec);
    config["quantization_config"]["modules_in_block_to_quantize"] = json!([modules]);
    support::write(&gptq, &config, &quantized);
    support::write(&twin, &support::plain_config(&spec), &plain);
    assert!(same(&load(&gptq).unwrap(), &load(&twin).unwrap()));

    config["quantization_config"]["dynamic"] = json!({"(": {"bits": 4}});
    support::write(&gptq, &config, &quantized);
    let message = load(&gptq).unwrap_err();
    assert!(message.contains("config.json") && message.contains("dynamic"), "{message}");
}

/// Packs a stream of 4-bit fields along the outputs, in AWQ's order.
fn awq_words(fields: &[u32]) -> Vec<u8> {
    let order = [0, 2, 4, 6, 1, 3, 5, 7];
    fields
        .chunks_exact(8)
        .map(|eight| order.iter().enumerate().fold(0, |word, (i, &at)| word | eight[at] << (4 * i)))
        .flat_map(u32::to_le_bytes)
        .collect()
}

#[test]
fn awq_layers_are_repacked() {
    let spec = Spec { v2: true, sym: false, ..Spec::default() };
    let words = |bytes: &[u8]| -> Vec<u32> {
        bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let repacked = |tensors: &mut Tensors| {
        let names: Vec<String> = tensors.keys().cloned().collect();
        for name in names {
            let Some(prefix) = name.strip_suffix(".qweight") else { continue };
            let (dtype, shape, bytes) = tensors[&name].clone();
            let (n, k) = (shape[1], shape[0] * 8);
            let packed = words(&bytes);
            let field = |row: usize, col: usize| packed[row / 8 * n + col] >> (row % 8 * 4) & 15;
            let fields: Vec<u32> = (0..k * n).map(|i| field(i / n, i % n)).collect();
            tensors.insert(name.clone(), (dtype, vec![k, n / 8], awq_words(&fields)));
            let zeros = tensors.get_mut(&format!("{prefix}.qzeros")).unwrap();
            let fields: Vec<u32> = words(&zeros.2)
                .into_iter()
                .flat_map(|word| (0..8).map(move |i| word >> (4 * i) & 15))
                .collect();
            zeros.2 = awq_words(&fields);
            tensors.remove(&format!("{prefix}.g_idx"));
        }
    };
    for keys in [("bits", "group_size"), ("w_bit", "q_group_size")] {
        let (model, twin) = check(&spec, |config, tensors, _| {
            repacked(tensors);
            config["quantization_config"] = json!({
                "quant_method": "awq", "version": "GEMM", "zero_point": true, keys.0: 4,
                keys.1: 32, "modules_to_not_convert": ["lm_head"],
            });
        });
        assert!(same(&model.unwrap(), &twin));
    }
    let (model, _) = check(&spec, |config, _, _| {
        config["quantization_config"] =
            json!({"quant_method": "awq", "version": "gemv", "bits": 4, "group_size": 32});
    });
    assert!(model.unwrap_err().contains("gemv"));
}

#[test]
fn a_promised_bias_of_the_output_projection_that_no_layer_has_is_zero() {
    let spec = Spec { bias: true, ..Spec::default() };
    let strip = |tensors: &mut Tensors, some: bool| {
        tensors.retain(|name, _| {
            !(name.ends_with("o_proj.bias") && (!some || name.contains("layers.0")))
        });
    };
    let (quantized, plain) = support::tensors(&spec);
    let dir = tempfile::tempdir().unwrap();
    let mut config = support::plain_config(&spec);
    let mut zero = plain.clone();
    for (name, (_, _, bytes)) in &mut zero {
        if name.ends_with("o_proj.bias") {
            bytes.fill(0);
        }
    }
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    support::write(&a, &config, &zero);
    let mut without = quantized.clone();
    strip(&mut without, false);
    support::write(&b, &support::quantized_config(&spec), &without);
    assert!(same(&load(&b).unwrap(), &load(&a).unwrap()));
    // Qwen2 has these biases without a key, and no others.
    let mut qwen = without.clone();
    let is_mlp = |name: &str| name.contains(".mlp.") && name.ends_with(".bias");
    qwen.retain(|name, _| !is_mlp(name));
    for (name, (_, _, bytes)) in &mut zero {
        if is_mlp(name) {
            bytes.fill(0);
        }
    }
    config["model_type"] = json!("llama");
    support::write(&a, &config, &zero);
    let mut described = support::quantized_config(&spec);
    described["model_type"] = json!("qwen2");
    described.as_object_mut().unwrap().remove("attention_bias");
    described.as_object_mut().unwrap().remove("mlp_bias");
    support::write(&b, &described, &qwen);
    assert!(same(&load(&b).unwrap(), &load(&a).unwrap()));

    let mut some = quantized;
    strip(&mut some, true);
    support::write(&b, &support::quantized_config(&spec), &some);
    let message = load(&b).unwrap_err();
    assert!(message.contains("layers.0.self_attn.o_proj.bias"), "{message}");
}

#[test]
fn end_ids_come_from_generation_config_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = support::plain_config(&Spec::default());
    config["eos_token_id"] = json!(5);
    write_json(dir.path(), "config.json", &config);
    let ends = || LlamaConfig::from_dir(dir.path()).unwrap().eos_token_ids;
    assert_eq!(ends(), [5]);
    write_json(dir.path(), "generation_config.json", &json!({"temperature": 1}));
    assert_eq!(ends(), [5]);
    write_json(dir.path(), "generation_config.json", &json!({"eos_token_id": [6, 7]}));
    assert_eq!(ends(), [6, 7]);
    write_json(dir.path(), "generation_config.json", &json!({"eos_token_id": "x"}));
    let message = LlamaConfig::from_dir(dir.path()).unwrap_err().to_string();
    assert!(message.contains("generation_config.json") && message.contains("eos_token_id"));
}

#[test]
fn shards_under_any_index_are_found() {
    let spec = Spec::default();
    let dir = tempfile::tempdir().unwrap();
    let (quantized, _) = support::tensors(&spec);
    let whole = dir.path().join("whole");
    support::write(&whole, &support::quantized_config(&spec), &quantized);
    let sharded = dir.path().join("sharded");
    std::fs::create_dir(&sharded).unwrap();
    write_json(&sharded, "config.json", &support::quantized_config(&spec));
    let mut map = serde_json::Map::new();
    let mut parts = [Tensors::new(), Tensors::new()];
    for (i, (name, tensor)) in quantized.iter().enumerate() {
        parts[i % 2].insert(name.clone(), tensor.clone());
        map.insert(name.clone(), json!(format!("gptq_model-4bit-32g-{}.safetensors", i % 2)));
    }
    for (i, part) in parts.iter().enumerate() {
        let name = format!("gptq_model-4bit-32g-{i}.safetensors");
        std::fs::write(sharded.join(name), support::serialize(part)).unwrap();
    }
    let index = json!({"weight_map": map});
    write_json(&sharded, "gptq_model-4bit-32g.safetensors.index.json", &index);
    let expected = load(&whole).unwrap();
    assert!(same(&load(&sharded).unwrap(), &expected));
    // This shard was not downloaded.
    let shard = sharded.join("gptq_model-4bit-32g-1.safetensors");
    let bytes = std::fs::read(&shard).unwrap();
    std::fs::remove_file(&shard).unwrap();
    let message = load(&sharded).unwrap_err();
    for part in ["index.json", "gptq_model-4bit-32g-1.safetensors", "download"] {
        assert!(message.contains(part), "{message}");
    }
    std::fs::write(&shard, bytes).unwrap();
    // transformers prefers the single file.
    std::fs::copy(whole.join("model.safetensors"), sharded.join("model.safetensors")).unwrap();
    write_json(&sharded, "model.safetensors.index.json", &index);
    assert!(same(&load(&sharded).unwrap(), &expected));
}

#[test]
fn files_that_are_none_are_called_what_they_are() {
    let spec = Spec::default();
    let dir = tempfile::tempdir().unwrap();
    let (quantized, _) = support::tensors(&spec);
    let config = support::quantized_config(&spec);
    let restore = || support::write(dir.path(), &config, &quantized);
    restore();
    let weights = std::fs::read(dir.path().join("model.safetensors")).unwrap();
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3896726144\n";
    let half = &weights[..weights.len() / 2];
    let promised = format!("promises {}", weights.len());
    let cases: [(&str, &[u8], &[&str]); 8] = [
        ("model.safetensors", pointer, &["Git LFS", "3896726144", "git lfs pull"]),
        ("model.safetensors", half, &["incomplete download", &promised]),
        ("model.safetensors", b"<!DOCTYPE html>", &["HTML"]),
        ("model.safetensors", b"Entry not found", &["\"Entry not found\""]),
        ("model.safetensors", b"", &["empty"]),
        ("config.json", pointer, &["Git LFS"]),
        ("config.json", b"{\"model_type\": \"lla", &["too early", "incomplete"]),
        ("config.json", br#"{"error": "Repository not found"}"#, &["Repository not found"]),
    ];
    for (name, bytes, parts) in cases {
        restore();
        std::fs::write(dir.path().join(name), bytes).unwrap();
        let message = load(dir.path()).unwrap_err();
        for part in parts.iter().chain([&name]) {
            assert!(message.contains(part), "{message} lacks {part}");
        }
    }
    restore();
    std::fs::rename(dir.path().join("model.safetensors"), dir.path().join("pytorch_model.bin"))
        .unwrap();
    let message = load(dir.path()).unwrap_err();
    assert!(message.contains("pytorch_model.bin") && message.contains("convert"), "{message}");
}

#[test]
fn an_output_layer_that_no_place_has_is_missed_by_name() {
    let spec = Spec { tied: true, ..Spec::default() };
    let dir = tempfile::tempdir().unwrap();
    let (_, mut plain) = support::tensors(&spec);
    let mut config = support::plain_config(&spec);
    config["tie_word_embeddings"] = json!(false);
    support::write(dir.path(), &config, &plain);
    assert!(load(dir.path()).unwrap_err().contains("lm_head.weight"));
    config["tie_word_embeddings"] = json!(true);
    let head = vec![0.25; spec.vocab * spec.hidden];
    let shape = vec![spec.vocab, spec.hidden];
    plain.insert("lm_head.weight".into(), (Dtype::F32, shape, support::f32_bytes(&head)));
    support::write(dir.path(), &config, &plain);
    let message = load(dir.path()).unwrap_err();
    assert!(message.contains("lm_head.weight") && message.contains("tie_word_embeddings"));
}
