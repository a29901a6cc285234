//! Loads two thousand damaged `tokenizer.json` files. Loading returns an error that names the file,
//! or a tokenizer that runs.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use glta_llm::Tokenizer;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Map, Value, json};

/// Returns a BPE tokenizer with byte-level fallback and the other components of LLaMA's.
fn valid() -> Value {
    let words = ["<unk>", "<s>", "</s>"].map(str::to_owned).into_iter();
    let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
    let pieces = ["▁", "a", "b", "c", "ab", "▁ab", "▁abc"].map(str::to_owned);
    let vocabulary: Map<String, Value> =
        words.chain(bytes).chain(pieces).zip(0..).map(|(t, id)| (t, json!(id))).collect();
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "special": true, "single_word": false,
               "lstrip": false, "rstrip": false, "normalized": false})
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]},
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "\\s+|[^\\s]+"},
                          "behavior": "Isolated", "invert": false},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                     {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "fuse_unk": true,
                  "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "byte_fallback": true, "vocab": vocabulary,
                  "merges": ["a b", "▁ ab", "▁ab c"]},
    })
}

#[derive(Clone, Debug)]
enum Mutation {
    Byte(Index, u8),
    Truncate(Index),
    /// Replace any value, but rarely in the long vocabulary.
    Value(Index, Value),
    Remove(Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let wild = prop::sample::select(vec![
        json!(null),
        json!(0),
        json!(-1),
        json!(300),
        json!(u32::MAX),
        json!(u64::MAX),
        json!(1e300),
        json!(""),
        json!("x"),
        json!("ab"),
        json!("(a*)*["),
        json!([]),
        json!({}),
        json!(true),
        json!([["a", "b"]]),
        json!({"type": "ByteLevel"}),
        json!({"type": "Unigram", "vocab": [], "unk_id": 7}),
    ]);
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(i, b)| Mutation::Byte(i, b)),
        any::<Index>().prop_map(Mutation::Truncate),
        (any::<Index>(), wild).prop_map(|(i, v)| Mutation::Value(i, v)),
        any::<Index>().prop_map(Mutation::Remove),
    ]
}

/// Collects JSON pointers to all values within `value`.
fn pointers(value: &Value, prefix: &str, out: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(map) if map.len() > 100 => map
            .iter()
            .take(8)
            .map(|(key, child)| (key.replace('~', "~0").replace('/', "~1"), child))
            .collect(),
        Value::Object(map) => map.iter().map(|(key, child)| (key.clone(), child)).collect(),
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

fn apply(mutation: &Mutation) -> Vec<u8> {
    let mut value = valid();
    let mut bytes = value.to_string().into_bytes();
    let mut all = Vec::new();
    pointers(&value, "", &mut all);
    match mutation {
        Mutation::Byte(at, byte) => {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
            return bytes;
        }
        Mutation::Truncate(at) => {
            bytes.truncate(at.index(bytes.len()));
            return bytes;
        }
        Mutation::Value(at, new) => {
            *value.pointer_mut(&all[at.index(all.len())]).unwrap() = new.clone()
        }
        Mutation::Remove(at) => {
            let (parent, key) = all[at.index(all.len())].rsplit_once('/').unwrap();
            match value.pointer_mut(parent).unwrap() {
                Value::Object(map) => drop(map.remove(key)),
                Value::Array(list) => drop(list.remove(key.parse().unwrap())),
                _ => {}
            }
        }
    }
    value.to_string().into_bytes()
}

#[test]
fn damaged_tokenizers_give_errors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    std::fs::write(&path, valid().to_string()).unwrap();
    let tokenizer = Tokenizer::load(dir.path()).unwrap();
    let ids = tokenizer.encode("abc ü", true).unwrap();
    assert_eq!(ids.len(), 5);
    assert_eq!(tokenizer.decode(&ids).unwrap(), "abc ü");

    let config = ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let loaded = std::cell::Cell::new(0);
    runner
        .run(&mutation(), |mutation| {
            std::fs::write(&path, apply(&mutation)).unwrap();
            match Tokenizer::load(dir.path()) {
                Err(error) => {
                    prop_assert!(error.to_string().contains("tokenizer.json"), "{error}");
                }
                Ok(tokenizer) => {
                    loaded.set(loaded.get() + 1);
                    for text in ["", "ab abc\n\nü 12", "<s>"] {
                        if let Ok(ids) = tokenizer.encode(text, true) {
                            let _ = tokenizer.decode(&ids);
                        }
                    }
                    let _ = tokenizer.decode(&[u32::MAX, 0, 5]);
                }
            }
            Ok(())
        })
        .unwrap();
    println!("{} loaded, {} refused", loaded.get(), 2000 - loaded.get());
    assert!((200..1800).contains(&loaded.get()), "{}", loaded.get());
}
