//! Loads ten thousand damaged checkpoints. Loading returns an error or a model that runs; it never
//! panics, hangs or allocates without bound.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod support;

use std::path::Path;
use std::sync::OnceLock;

use candle_core::Device;
use glta_llm::{Error, ForwardOptions, Llama, LlamaOptions};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Map, Value, json};

use support::Spec;

/// The files of a valid checkpoint that the mutations start from.
struct Valid {
    config: Value,
    weights: Vec<u8>,
}

fn valid() -> &'static Valid {
    static VALID: OnceLock<Valid> = OnceLock::new();
    VALID.get_or_init(|| {
        let spec = Spec {
            vocab: 32,
            hidden: 32,
            inner: 32,
            layers: 1,
            heads: 2,
            kv_heads: 1,
            act_order: true,
            group: 16,
            ..Spec::default()
        };
        let (quantized, _) = support::tensors(&spec);
        Valid { config: support::quantized_config(&spec), weights: support::serialize(&quantized) }
    })
}

fn header(weights: &[u8]) -> Value {
    let len = u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
    serde_json::from_slice(&weights[8..8 + len]).unwrap()
}

fn with_header(weights: &[u8], header: &Value) -> Vec<u8> {
    let len = u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
    let text = header.to_string().into_bytes();
    let mut out = (text.len() as u64).to_le_bytes().to_vec();
    out.extend(text);
    out.extend(&weights[8 + len..]);
    out
}

#[derive(Clone, Debug)]
enum Mutation {
    /// Cut the file.
    Truncate(Index),
    /// Append bytes.
    Extend(u8),
    /// Change a byte of the header (length included).
    HeaderByte(Index, u8),
    /// Change the length of the header.
    HeaderLength(u64),
    /// Change a byte of the data.
    DataByte(Index, u8),
    Dtype(Index, &'static str),
    Shape(Index, Index, u64),
    Offset(Index, bool, u64),
    /// Make one tensor overlap another.
    Overlap(Index, Index),
    Remove(Index),
    Rename(Index),
    /// Overwrite a tensor with one repeated byte, which gives NaN scales or invalid groups.
    Fill(Index, u8),
    /// Make one entry of a `g_idx` invalid.
    Group(Index, Index, u32),
    Config(Index, Value),
    Quantization(Index, Value),
    ConfigByte(Index, u8),
    /// Change `quantize_config.json` in the same ways.
    QuantizationFile(Index, Value),
    QuantizationByte(Index, u8),
    /// Add an index with missing shards or without some tensors.
    Shards(Index, bool),
    /// Add an index with an invalid shard, or with a changed byte.
    Shard(Index, Value),
    IndexByte(Index, u8),
}

fn wild() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(null)),
        Just(json!(0)),
        Just(json!(-1)),
        Just(json!(3)),
        Just(json!(u64::MAX)),
        Just(json!(1u64 << 27)),
        Just(json!(1e300)),
        Just(json!("x")),
        Just(json!([1, "a"])),
        Just(json!({"rope_type": "yarn", "factor": 2})),
        Just(
            json!({"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1})
        ),
        any::<u16>().prop_map(|n| json!(n)),
        any::<bool>().prop_map(|b| json!(b)),
    ]
}

fn shard_name() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![json!(""), json!(".."), json!("/"), json!("config.json")])
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let sizes = prop_oneof![Just(0), Just(1), Just(31), Just(1 << 40), Just(u64::MAX), 0..4096u64];
    let dtypes = prop::sample::select(vec![
        "I32", "F16", "BF16", "F32", "F64", "U8", "I64", "BOOL", "F8_E4M3", "X",
    ]);
    prop_oneof![
        any::<Index>().prop_map(Mutation::Truncate),
        any::<u8>().prop_map(Mutation::Extend),
        (any::<Index>(), any::<u8>()).prop_map(|(i, b)| Mutation::HeaderByte(i, b)),
        sizes.clone().prop_map(Mutation::HeaderLength),
        (any::<Index>(), any::<u8>()).prop_map(|(i, b)| Mutation::DataByte(i, b)),
        (any::<Index>(), dtypes).prop_map(|(i, d)| Mutation::Dtype(i, d)),
        (any::<Index>(), any::<Index>(), sizes.clone())
            .prop_map(|(i, d, s)| Mutation::Shape(i, d, s)),
        (any::<Index>(), any::<bool>(), sizes).prop_map(|(i, e, s)| Mutation::Offset(i, e, s)),
        (any::<Index>(), any::<Index>()).prop_map(|(i, j)| Mutation::Overlap(i, j)),
        any::<Index>().prop_map(Mutation::Remove),
        any::<Index>().prop_map(Mutation::Rename),
        (any::<Index>(), any::<u8>()).prop_map(|(i, b)| Mutation::Fill(i, b)),
        (any::<Index>(), any::<Index>(), prop_oneof![any::<u32>(), 0..8u32])
            .prop_map(|(i, j, g)| Mutation::Group(i, j, g)),
        (any::<Index>(), wild()).prop_map(|(i, v)| Mutation::Config(i, v)),
        (any::<Index>(), wild()).prop_map(|(i, v)| Mutation::Quantization(i, v)),
        (any::<Index>(), any::<u8>()).prop_map(|(i, b)| Mutation::ConfigByte(i, b)),
        (any::<Index>(), wild()).prop_map(|(i, v)| Mutation::QuantizationFile(i, v)),
        (any::<Index>(), any::<u8>()).prop_map(|(i, b)| Mutation::QuantizationByte(i, b)),
        (any::<Index>(), any::<bool>()).prop_map(|(i, b)| Mutation::Shards(i, b)),
        (any::<Index>(), prop_oneof![wild(), shard_name()])
            .prop_map(|(i, v)| Mutation::Shard(i, v)),
        (any::<Index>(), any::<u8>()).prop_map(|(i, b)| Mutation::IndexByte(i, b)),
    ]
}

fn pick(index: &Index, object: &Value) -> String {
    let keys: Vec<&String> = object.as_object().unwrap().keys().collect();
    index.get(&keys).to_string()
}

fn apply(mutation: &Mutation, dir: &Path) {
    let Valid { config, weights } = valid();
    let (mut config, mut weights) = (config.clone(), weights.clone());
    let header_len = 8 + u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
    let mut header = header(&weights);
    let (mut config_bytes, mut quantization_bytes, mut index) = (None, None, None);
    let with_byte = |value: &Value, at: &Index, byte: u8| {
        let mut bytes = value.to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes
    };
    let names: Vec<String> = header.as_object().unwrap().keys().cloned().collect();
    let map: Map<String, Value> =
        names.iter().map(|name| (name.clone(), json!("model.safetensors"))).collect();
    match mutation {
        Mutation::Truncate(at) => weights.truncate(at.index(weights.len())),
        Mutation::Extend(byte) => weights.extend(vec![*byte; *byte as usize + 1]),
        Mutation::HeaderByte(at, byte) => weights[at.index(header_len)] = *byte,
        Mutation::HeaderLength(length) => {
            weights[..8].copy_from_slice(&length.to_le_bytes());
        }
        Mutation::DataByte(at, byte) => {
            let at = header_len + at.index(weights.len() - header_len);
            weights[at] = *byte;
        }
        Mutation::Dtype(at, dtype) => {
            let name = pick(at, &header);
            header[&name]["dtype"] = json!(dtype);
            weights = with_header(&weights, &header);
        }
        Mutation::Shape(at, dim, size) => {
            let name = pick(at, &header);
            let shape = header[&name]["shape"].as_array_mut().unwrap();
            let dim = dim.index(shape.len() + 1);
            match shape.get_mut(dim) {
                Some(old) => *old = json!(size),
                None => shape.push(json!(size)),
            }
            weights = with_header(&weights, &header);
        }
        Mutation::Offset(at, end, value) => {
            let name = pick(at, &header);
            header[&name]["data_offsets"][usize::from(*end)] = json!(value);
            weights = with_header(&weights, &header);
        }
        Mutation::Overlap(at, other) => {
            let offsets = header[pick(other, &header)]["data_offsets"].clone();
            let name = pick(at, &header);
            header[name]["data_offsets"] = offsets;
            weights = with_header(&weights, &header);
        }
        Mutation::Remove(at) => {
            let name = pick(at, &header);
            header.as_object_mut().unwrap().remove(&name);
            weights = with_header(&weights, &header);
        }
        Mutation::Rename(at) => {
            let name = pick(at, &header);
            let entry = header.as_object_mut().unwrap().remove(&name).unwrap();
            header[format!("{name}.extra")] = entry;
            weights = with_header(&weights, &header);
        }
        Mutation::Fill(at, byte) => {
            let name = pick(at, &header);
            let offset = |i: usize| header[&name]["data_offsets"][i].as_u64().unwrap() as usize;
            weights[header_len + offset(0)..header_len + offset(1)].fill(*byte);
        }
        Mutation::Group(at, entry, group) => {
            let groups: Vec<&String> = names.iter().filter(|n| n.ends_with("g_idx")).collect();
            let range = data_range(&header, &weights, groups[at.index(groups.len())]);
            let start = range.start + 4 * entry.index(range.len() / 4);
            weights[start..start + 4].copy_from_slice(&group.to_le_bytes());
        }
        Mutation::Config(at, value) => {
            let name = pick(at, &config);
            config[name] = value.clone();
        }
        Mutation::Quantization(at, value) => {
            let name = pick(at, &config["quantization_config"]);
            config["quantization_config"][name] = value.clone();
        }
        Mutation::ConfigByte(at, byte) => {
            config_bytes = Some(with_byte(&config, at, *byte));
        }
        Mutation::QuantizationFile(at, value) => {
            let mut block = config["quantization_config"].take();
            let name = pick(at, &block);
            block[name] = value.clone();
            quantization_bytes = Some(block.to_string().into_bytes());
        }
        Mutation::QuantizationByte(at, byte) => {
            let block = config["quantization_config"].take();
            quantization_bytes = Some(with_byte(&block, at, *byte));
        }
        Mutation::Shards(at, missing) => {
            let name = at.get(&names);
            let mut map = map;
            if *missing {
                map[name] = json!("model-00002-of-00002.safetensors")
            } else {
                drop(map.remove(name))
            }
            index = Some(json!({"weight_map": map}).to_string().into_bytes());
        }
        Mutation::Shard(at, value) => {
            let mut map = map;
            map[at.get(&names)] = value.clone();
            index = Some(json!({"weight_map": map}).to_string().into_bytes());
        }
        Mutation::IndexByte(at, byte) => {
            index = Some(with_byte(&json!({"weight_map": map}), at, *byte));
        }
    }
    let config = config_bytes.unwrap_or_else(|| config.to_string().into_bytes());
    let files = [
        ("config.json", Some(config)),
        ("quantize_config.json", quantization_bytes),
        ("model.safetensors", Some(weights)),
        ("model.safetensors.index.json", index),
    ];
    for (name, bytes) in files {
        match bytes {
            Some(bytes) => std::fs::write(dir.join(name), bytes).unwrap(),
            None => drop(std::fs::remove_file(dir.join(name))),
        }
    }
}

fn load(dir: &Path) -> Result<Llama, Error> {
    Llama::load(dir, &LlamaOptions::default(), &Device::Cpu)
}

#[test]
fn damaged_checkpoints_give_errors() {
    let dir = tempfile::tempdir().unwrap();
    let (mut loaded, mut refused) = (0, 0);
    let config = ProptestConfig {
        cases: 10_000,
        failure_persistence: None,
        max_shrink_iters: 50,
        ..ProptestConfig::default()
    };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let counts = std::cell::RefCell::new((&mut loaded, &mut refused));
    runner
        .run(&mutation(), |mutation| {
            apply(&mutation, dir.path());
            let mut counts = counts.borrow_mut();
            match load(dir.path()) {
                Err(error) => {
                    // The message names the file or the field, and the tensor.
                    let message = error.to_string();
                    let named = match &error {
                        Error::Config { field, .. } => message.contains(field),
                        Error::Unsupported { what, .. } => message.contains(what.as_str()),
                        Error::Tensor { tensor, .. }
                        | Error::MissingTensor { tensor, .. }
                        | Error::UnexpectedTensor { tensor, .. } => {
                            message.contains(tensor.as_str()) && message.contains(".safetensors")
                        }
                        Error::Io { path, .. }
                        | Error::Json { path, .. }
                        | Error::Safetensors { path, .. } => {
                            path != dir.path() && message.contains(&*path.to_string_lossy())
                        }
                        _ => false,
                    };
                    prop_assert!(named, "{message}");
                    *counts.1 += 1;
                }
                Ok(model) => {
                    // The change is harmless, or a reader cannot detect it.
                    if let Ok(x) = model.embed(&[1, 2, 3]) {
                        let x = x.unsqueeze(0).unwrap();
                        let _ = model.hidden_states(&x, &[3], &ForwardOptions::default());
                    }
                    *counts.0 += 1;
                }
            }
            Ok(())
        })
        .unwrap();
    println!("{loaded} loaded, {refused} refused");
    assert_eq!(loaded + refused, 10_000);
    assert!(loaded > 500 && refused > 5000, "{loaded} {refused}");
}

/// Returns the message of loading the valid checkpoint after one mutation.
fn message(mutation: impl FnOnce(&mut Value, &mut Value, &mut Vec<u8>)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let Valid { config, weights } = valid();
    let (mut config, mut data) = (config.clone(), weights.clone());
    let mut header = header(weights);
    mutation(&mut config, &mut header, &mut data);
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    std::fs::write(dir.path().join("model.safetensors"), with_header(&data, &header)).unwrap();
    match load(dir.path()) {
        Ok(_) => "loaded".into(),
        Err(error) => error.to_string(),
    }
}

fn data_range(header: &Value, data: &[u8], name: &str) -> std::ops::Range<usize> {
    let base = 8 + u64::from_le_bytes(data[..8].try_into().unwrap()) as usize;
    let offset = |i: usize| base + header[name]["data_offsets"][i].as_u64().unwrap() as usize;
    offset(0)..offset(1)
}

#[test]
fn messages_name_file_and_tensor() {
    assert_eq!(message(|_, _, _| ()), "loaded");
    let scales = "model.layers.0.mlp.up_proj.scales";
    let g_idx = "model.layers.0.self_attn.q_proj.g_idx";
    let overlap = "model.layers.0.self_attn.k_proj.scales";
    let cases: [(String, &[&str]); 10] = [
        // The tensors have equal shapes and wrong offsets.
        (
            message(|_, h, _| {
                h[overlap]["data_offsets"] =
                    h["model.layers.0.self_attn.v_proj.scales"]["data_offsets"].clone();
            }),
            &["model.safetensors", "not a valid safetensors file"],
        ),
        (
            message(|_, h, _| h[scales]["shape"] = json!([u32::MAX, u32::MAX])),
            &["model.safetensors", "not a valid safetensors file"],
        ),
        (
            message(|_, h, _| drop(h.as_object_mut().unwrap().remove(scales))),
            &["model.safetensors"],
        ),
        (
            message(|_, h, _| h[scales]["dtype"] = json!("I16")),
            &["model.safetensors", scales, "I16", "F16"],
        ),
        (
            message(|_, h, d| {
                let range = data_range(h, d, scales);
                d[range].fill(0xff);
            }),
            &["model.safetensors", scales, "NaN"],
        ),
        (
            message(|_, h, d| {
                let range = data_range(h, d, g_idx);
                d[range.start..range.start + 4].copy_from_slice(&77u32.to_le_bytes());
            }),
            &["model.safetensors", g_idx, "group 77"],
        ),
        (
            message(|c, _, _| c["hidden_size"] = json!(48)),
            &["model.embed_tokens.weight", "[32, 32]", "[32, 48]"],
        ),
        (
            message(|c, _, _| c["quantization_config"]["bits"] = json!(5)),
            &["unsupported", "bits = 5", "2, 3, 4, 8"],
        ),
        (message(|c, _, _| c["model_type"] = json!("gemma2")), &["unsupported", "gemma2", "llama"]),
        (
            message(|c, _, _| c["num_hidden_layers"] = json!(2)),
            &["model.safetensors", "model.layers.1.", "missing"],
        ),
    ];
    for (message, parts) in cases {
        for part in parts {
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
    }
    let extra = message(|_, h, _| {
        let entry = h.as_object_mut().unwrap().remove("model.norm.weight").unwrap();
        h["model.norm2.weight"] = entry;
    });
    assert!(extra.contains("model.norm.weight") && extra.contains("missing"), "{extra}");
}

#[test]
fn harmless_leftovers_pass_and_others_do_not() {
    let spec = Spec::default();
    let check = |name: &str, shape: Vec<usize>, values: Vec<f32>| {
        let dir = tempfile::tempdir().unwrap();
        let (mut tensors, _) = support::tensors(&spec);
        tensors.insert(name.into(), (safetensors::Dtype::F32, shape, support::f32_bytes(&values)));
        support::write(dir.path(), &support::quantized_config(&spec), &tensors);
        load(dir.path()).map(drop)
    };
    let bias = "model.layers.1.self_attn.q_proj.bias";
    assert!(check(bias, vec![64], vec![0.0; 64]).is_ok());
    assert!(check(bias, vec![64], vec![0.5; 64]).unwrap_err().to_string().contains(bias));
    assert!(check("model.layers.0.self_attn.rotary_emb.inv_freq", vec![8], vec![1.0; 8]).is_ok());
    assert!(
        check("model.something", vec![1], vec![0.0])
            .unwrap_err()
            .to_string()
            .contains("model.something")
    );
    assert!(check("lm_head.weight", vec![96, 64], vec![0.1; 96 * 64]).is_err());
}
