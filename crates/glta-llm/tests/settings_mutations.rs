//! Loads ten thousand damaged settings of the newer formats. Loading returns an error that names
//! the file, or a model, a tokenizer and a chat template that run. It never panics or hangs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Device;
use glta_llm::{ChatTemplate, ForwardOptions, Llama, LlamaOptions, Tokenizer};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use support::Spec;

const WEIGHTS: &str = "gptq_model-4bit-16g.safetensors";

/// Returns a Qwen3 checkpoint with YaRN, windows, a layer with other bits, end tokens in several
/// files, and shards under AutoGPTQ's names.
fn files() -> BTreeMap<&'static str, Value> {
    let spec = spec();
    let mut config = support::quantized_config(&spec);
    config.as_object_mut().unwrap().extend(
        json!({
            "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "attention_bias": false,
            "use_sliding_window": true, "sliding_window": 5, "max_window_layers": 0,
            "layer_types": ["sliding_attention"],
            "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0,
                             "original_max_position_embeddings": 16, "beta_fast": 32.0,
                             "beta_slow": 1.0, "attention_factor": 1.1, "truncate": true},
        })
        .as_object()
        .unwrap()
        .clone(),
    );
    let block = &mut config["quantization_config"];
    block["dynamic"] = json!({"-:.*lm_head": {}, "+:.*mlp\\.(up|gate)_proj": {"bits": 4}});
    let (weights, _) = support::tensors(&spec);
    let mut map: serde_json::Map<String, Value> =
        weights.keys().map(|name| (name.clone(), json!(WEIGHTS))).collect();
    for norm in NORMS {
        map.insert(norm.into(), json!(WEIGHTS));
    }
    let flags = json!({"content": "<end>", "special": true, "lstrip": false, "rstrip": false,
                       "normalized": false, "single_word": false});
    let vocab: serde_json::Map<String, Value> = ["<s>", "a", "b", "▁", "▁a", "<end>"]
        .into_iter()
        .zip(0..)
        .map(|(t, i)| (t.into(), json!(i)))
        .collect();
    let token = |id: u32, content: &str| {
        json!({"id": id, "content": content, "special": true, "single_word": false,
               "lstrip": false, "rstrip": false, "normalized": false})
    };
    BTreeMap::from([
        ("config.json", config.clone()),
        ("quantize_config.json", config["quantization_config"].clone()),
        ("generation_config.json", json!({"eos_token_id": [2, 5], "bos_token_id": 0})),
        (
            "tokenizer.json",
            json!({
                "version": "1.0", "added_tokens": [token(0, "<s>")], "post_processor": null,
                "normalizer": {"type": "Prepend", "prepend": "▁"}, "pre_tokenizer": null,
                "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"},
                "model": {"type": "BPE", "vocab": vocab, "merges": [["▁", "a"]]},
            }),
        ),
        (
            "tokenizer_config.json",
            json!({
                "tokenizer_class": "LlamaTokenizer", "legacy": false, "bos_token": "<s>",
                "eos_token": {"content": "<end>"}, "add_bos_token": true,
                "added_tokens_decoder": {"0": token(0, "<s>"), "5": flags},
                "additional_special_tokens": ["<end>"],
                "chat_template": "{% for m in messages %}{{ m.role + m['content'].strip() }}{% endfor %}",
            }),
        ),
        ("special_tokens_map.json", json!({"bos_token": "<s>", "pad_token": {"content": "<end>"}})),
        ("gptq_model-4bit-16g.safetensors.index.json", json!({"weight_map": map})),
    ])
}

const NORMS: [&str; 2] =
    ["model.layers.0.self_attn.q_norm.weight", "model.layers.0.self_attn.k_norm.weight"];

fn spec() -> Spec {
    Spec {
        vocab: 16,
        hidden: 32,
        inner: 32,
        layers: 1,
        heads: 2,
        kv_heads: 1,
        group: 16,
        context: 64,
        ..Spec::default()
    }
}

#[derive(Clone, Debug)]
enum Change {
    Value(Index, Value),
    Remove(Index),
    Rename(Index, &'static str),
    Byte(Index, u8),
    Truncate(Index),
    /// Replace the whole file.
    Other(&'static str),
    Absent,
}

fn change() -> impl Strategy<Value = Change> {
    let wild = prop::sample::select(vec![
        json!(null),
        json!(0),
        json!(-1),
        json!(3),
        json!(0.5),
        json!(u64::MAX),
        json!(1e300),
        json!(""),
        json!("x"),
        json!("(a+)+$"),
        json!("{{ messages"),
        json!("{% for i in range(9999999) %}{% for j in range(9999999) %}{% endfor %}{% endfor %}"),
        json!([]),
        json!({}),
        json!([1, "a", null]),
        json!(true),
        json!(false),
        json!({"content": "<s>", "lstrip": 3}),
        json!({"bits": 3, "group_size": -5}),
        json!({"rope_type": "linear", "factor": -1}),
        json!("mistral"),
        json!("llama"),
        json!("gptq_v2"),
    ]);
    let keys = prop::sample::select(vec![
        "bits",
        "type",
        "rope_type",
        "factor",
        "sliding_window",
        "chat_template",
        "bos_token",
        "extra_special_tokens",
        "7",
        "a",
    ]);
    let texts = prop::sample::select(vec![
        "",
        "[]",
        "{}",
        "null",
        "<html></html>",
        "version https://git-lfs.github.com/spec/v1\nsize 3\n",
        "{\"error\": \"gone\"}",
    ]);
    prop_oneof![
        4 => (any::<Index>(), wild).prop_map(|(i, v)| Change::Value(i, v)),
        2 => any::<Index>().prop_map(Change::Remove),
        1 => (any::<Index>(), keys).prop_map(|(i, k)| Change::Rename(i, k)),
        1 => (any::<Index>(), any::<u8>()).prop_map(|(i, b)| Change::Byte(i, b)),
        1 => any::<Index>().prop_map(Change::Truncate),
        1 => texts.prop_map(Change::Other),
        1 => Just(Change::Absent),
    ]
}

/// Collects JSON pointers to all values within `value`.
fn pointers(value: &Value, prefix: &str, out: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, child)| (key.replace('~', "~0").replace('/', "~1"), child))
            .collect(),
        Value::Array(list) => {
            list.iter().enumerate().map(|(i, child)| (i.to_string(), child)).collect()
        }
        _ => Vec::new(),
    };
    for (key, child) in children {
        let pointer = format!("{prefix}/{key}");
        pointers(child, &pointer, out);
        out.push(pointer);
    }
}

fn changed(value: &Value, change: &Change) -> Option<Vec<u8>> {
    let mut value = value.clone();
    let mut bytes = value.to_string().into_bytes();
    let mut all = Vec::new();
    pointers(&value, "", &mut all);
    let parent = |at: &Index| {
        let (parent, key) = all[at.index(all.len())].rsplit_once('/').unwrap();
        (parent.to_owned(), key.replace("~1", "/").replace("~0", "~"))
    };
    match change {
        Change::Absent => return None,
        Change::Other(text) => return Some(text.as_bytes().to_vec()),
        Change::Byte(at, byte) => {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
            return Some(bytes);
        }
        Change::Truncate(at) => {
            bytes.truncate(at.index(bytes.len()));
            return Some(bytes);
        }
        Change::Value(at, new) => {
            *value.pointer_mut(&all[at.index(all.len())]).unwrap() = new.clone();
        }
        Change::Remove(at) => {
            let (parent, key) = parent(at);
            match value.pointer_mut(&parent).unwrap() {
                Value::Object(map) => drop(map.remove(&key)),
                Value::Array(list) => drop(list.remove(key.parse().unwrap())),
                _ => {}
            }
        }
        Change::Rename(at, new) => {
            let (parent, key) = parent(at);
            if let Value::Object(map) = value.pointer_mut(&parent).unwrap() {
                let child = map.remove(&key).unwrap();
                map.insert((*new).to_owned(), child);
            }
        }
    }
    Some(value.to_string().into_bytes())
}

fn write(dir: &Path, name: &str, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => std::fs::write(dir.join(name), bytes).unwrap(),
        None => drop(std::fs::remove_file(dir.join(name))),
    }
}

/// Loads and runs everything, and returns the messages of the errors.
fn run(dir: &Path) -> Vec<String> {
    let mut refused = Vec::new();
    match Llama::load(dir, &LlamaOptions::default(), &Device::Cpu) {
        Ok(model) => {
            let x = model.embed(&[1, 2, 3, 4, 5, 6, 7]).unwrap().unsqueeze(0).unwrap();
            let _ = model.hidden_states(&x, &[7], &ForwardOptions::default());
        }
        Err(error) => refused.push(error.to_string()),
    }
    match Tokenizer::load(dir) {
        Ok(tokenizer) => {
            for text in ["", "a b<end>", "<s>ab"] {
                if let Ok(ids) = tokenizer.encode(text, true) {
                    let _ = tokenizer.decode_continuation(&ids, &[1, 4, 9]);
                }
                let _ = tokenizer.encode_continuation(text);
            }
        }
        Err(error) => refused.push(error.to_string()),
    }
    match ChatTemplate::load(dir).and_then(|chat| {
        chat.map(|chat| chat.render(&[("system", "s"), ("user", " u ")])).transpose()
    }) {
        Ok(_) => {}
        Err(error) => refused.push(error.to_string()),
    }
    refused
}

#[test]
fn damaged_settings_give_errors_that_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let files = files();
    let (mut weights, _) = support::tensors(&spec());
    for norm in NORMS {
        let ones = support::f32_bytes(&[1.0; 16]);
        weights.insert(norm.into(), (safetensors::Dtype::F32, vec![16], ones));
    }
    std::fs::write(dir.path().join(WEIGHTS), support::serialize(&weights)).unwrap();
    let whole: BTreeMap<&str, Vec<u8>> =
        files.iter().map(|(&name, value)| (name, value.to_string().into_bytes())).collect();
    for (name, bytes) in &whole {
        write(dir.path(), name, Some(bytes));
    }
    assert_eq!(run(dir.path()), Vec::<String>::new());

    let names: Vec<&str> = files.keys().copied().collect();
    let counts = std::cell::RefCell::new((0, 0));
    let config = ProptestConfig {
        cases: 10_000,
        failure_persistence: None,
        max_shrink_iters: 50,
        ..ProptestConfig::default()
    };
    proptest::test_runner::TestRunner::new(config)
        .run(&(any::<Index>(), change()), |(at, change)| {
            let name = *at.get(&names);
            write(dir.path(), name, changed(&files[name], &change).as_deref());
            let refused = run(dir.path());
            write(dir.path(), name, Some(&whole[name]));
            for message in &refused {
                let named = message.contains(&*dir.path().to_string_lossy());
                prop_assert!(named, "{name}: {message}");
            }
            let mut counts = counts.borrow_mut();
            if refused.is_empty() {
                counts.0 += 1
            } else {
                counts.1 += 1
            }
            Ok(())
        })
        .unwrap();
    let (accepted, refused) = *counts.borrow();
    println!("{accepted} accepted, {refused} refused");
    assert_eq!(accepted + refused, 10_000);
    assert!(accepted > 1000 && refused > 3000, "{accepted} {refused}");
}
