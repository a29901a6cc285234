use std::collections::HashMap;
use std::fs::write;
use std::ops::ControlFlow;
use std::path::PathBuf;

use candle_core::safetensors::save;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::Error;

#[path = "../../tests/support/real_data.rs"]
mod real_data;

use real_data::real_data;

const WORDS: [&str; 8] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "dark", "film", "comedy", "lotion"];

fn strings<const N: usize>(texts: [&str; N]) -> [String; N] {
    texts.map(String::from)
}

/// Writes a BERT with two layers and random weights that reads at most seven tokens.
fn tiny(dir: &Path) {
    let (hidden, inner) = (8, 12);
    let config = serde_json::json!({
        "vocab_size": WORDS.len(), "hidden_size": hidden, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": inner, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1, "max_position_embeddings": 10, "type_vocab_size": 2,
        "initializer_range": 0.02, "layer_norm_eps": 1e-12, "pad_token_id": 0,
        "model_type": "bert",
    });
    write(dir.join("config.json"), config.to_string()).unwrap();
    let modules = serde_json::json!([
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]);
    write(dir.join("modules.json"), modules.to_string()).unwrap();
    std::fs::create_dir_all(dir.join("1_Pooling")).unwrap();
    let pooling = serde_json::json!({
        "word_embedding_dimension": hidden,
        "pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true,
    });
    write(dir.join("1_Pooling/config.json"), pooling.to_string()).unwrap();
    write(dir.join("sentence_bert_config.json"), r#"{"max_seq_length": 7}"#).unwrap();
    let vocab: HashMap<&str, usize> = WORDS.iter().enumerate().map(|(i, w)| (*w, i)).collect();
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "added_tokens": [], "normalizer": null,
        // MiniLM's file has both settings. The encoder must override them.
        "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null,
                    "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
        "pre_tokenizer": {"type": "Whitespace"}, "decoder": null,
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"},
    });
    write(dir.join("tokenizer.json"), tokenizer.to_string()).unwrap();

    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut tensors = HashMap::new();
    let mut put = |name: String, shape: &[usize]| {
        let n = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|_| rng.random_range(-0.8f32..0.8)).collect();
        tensors.insert(name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap());
    };
    for (name, rows) in [("word", WORDS.len()), ("position", 10), ("token_type", 2)] {
        put(format!("embeddings.{name}_embeddings.weight"), &[rows, hidden]);
    }
    let mut norms = vec!["embeddings.LayerNorm".to_owned()];
    for layer in 0..2 {
        let at = format!("encoder.layer.{layer}");
        for (name, [rows, columns]) in [
            ("attention.self.query", [hidden, hidden]),
            ("attention.self.key", [hidden, hidden]),
            ("attention.self.value", [hidden, hidden]),
            ("attention.output.dense", [hidden, hidden]),
            ("intermediate.dense", [inner, hidden]),
            ("output.dense", [hidden, inner]),
        ] {
            put(format!("{at}.{name}.weight"), &[rows, columns]);
            put(format!("{at}.{name}.bias"), &[rows]);
        }
        norms.push(format!("{at}.attention.output.LayerNorm"));
        norms.push(format!("{at}.output.LayerNorm"));
    }
    for norm in norms {
        put(format!("{norm}.weight"), &[hidden]);
        put(format!("{norm}.bias"), &[hidden]);
    }
    save(&tensors, dir.join("model.safetensors")).unwrap();
}

fn change(path: PathBuf, from: &str, to: &str) {
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    write(path, text.replace(from, to)).unwrap();
}

#[test]
fn a_padded_batch_is_what_its_texts_are_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    tiny(dir.path());
    let encoder = SentenceEncoder::load(dir.path()).unwrap();
    assert_eq!(encoder.dim(), 8);
    let texts = strings(["dark film", "", "comedy", "dark comedy film lotion", " \n", "film dark"]);
    let mut calls = Vec::new();
    let all = encoder
        .encode_with(&texts, &mut |step: &(usize, usize)| {
            calls.push(*step);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(calls.last(), Some(&(6, 6)));
    for (row, text) in texts.iter().enumerate() {
        let alone = encoder.encode(std::slice::from_ref(text)).unwrap();
        let far = all.row(row).into_iter().zip(alone.row(0)).map(|(a, b)| (a - b).abs());
        assert!(far.fold(0f32, f32::max) < 1e-5, "{text}");
        let length = all.row(row).iter().map(|v| v * v).sum::<f32>().sqrt();
        let expected = if text.trim().is_empty() { 0.0 } else { 1.0 };
        assert!((length - expected).abs() < 1e-5, "{text}: {length}");
    }
    // The order of the words matters.
    let far = all.row(0).into_iter().zip(all.row(5)).map(|(a, b)| (a - b).abs());
    let far = far.fold(0f32, f32::max);
    assert!(far > 1e-3, "{far}");
}

#[test]
fn long_texts_are_cut_and_lower_case_is_a_setting() {
    let dir = tempfile::tempdir().unwrap();
    tiny(dir.path());
    let encoder = SentenceEncoder::load(dir.path()).unwrap();
    assert_eq!(encoder.tokens("dark film").unwrap(), [2, 4, 5, 3]);
    // Five words remain between the two special tokens.
    let long = encoder.tokens("dark film comedy lotion dark film comedy").unwrap();
    assert_eq!(long, [2, 4, 5, 6, 7, 4, 3]);
    assert_eq!(encoder.tokens("Dark").unwrap(), [2, 1, 3]);
    let path = dir.path().join("sentence_bert_config.json");
    write(&path, r#"{"max_seq_length": 4, "do_lower_case": true}"#).unwrap();
    let encoder = SentenceEncoder::load(dir.path()).unwrap();
    assert_eq!(encoder.tokens("Dark FILM comedy").unwrap(), [2, 4, 5, 3]);
    // Without the file, the limit is the number of positions.
    std::fs::remove_file(path).unwrap();
    let encoder = SentenceEncoder::load(dir.path()).unwrap();
    assert_eq!(encoder.tokens(&"film ".repeat(20)).unwrap().len(), 10);
}

#[test]
fn without_the_last_module_the_length_stays() {
    let dir = tempfile::tempdir().unwrap();
    tiny(dir.path());
    let texts = strings(["dark film"]);
    let unit = SentenceEncoder::load(dir.path()).unwrap().encode(&texts).unwrap();
    let modules =
        r#"[{"path": "", "type": "a.Transformer"}, {"path": "1_Pooling", "type": "a.Pooling"}]"#;
    write(dir.path().join("modules.json"), modules).unwrap();
    let free = SentenceEncoder::load(dir.path()).unwrap().encode(&texts).unwrap();
    let length = free.iter().map(|v| v * v).sum::<f32>().sqrt();
    assert!((length - 1.0).abs() > 0.05, "{length}");
    assert!(unit.iter().zip(&free).all(|(u, f)| (u * length - f).abs() < 1e-5));
}

#[test]
fn a_stop_is_heard() {
    let dir = tempfile::tempdir().unwrap();
    tiny(dir.path());
    let encoder = SentenceEncoder::load(dir.path()).unwrap();
    let texts = strings(["film"]);
    let stop = &mut |_: &(usize, usize)| ControlFlow::Break(());
    assert!(matches!(encoder.encode_with(&texts, stop), Err(Error::Cancelled)));

    let encoder: &dyn TextEncoder = &encoder.with_name("tiny");
    assert_eq!((encoder.name(), encoder.dim()), ("tiny", 8));
    assert!(encoder.encode(&texts, stop).unwrap_err().is::<Cancelled>());
    assert_eq!(encoder.encode(&texts, &mut Silent).unwrap().dim(), (1, 8));
}

#[test]
fn bad_folders_are_refused_with_the_file() {
    type Damage = fn(&Path);
    let cases: [(Damage, &str, &str); 10] = [
        (|d| std::fs::remove_file(d.join("modules.json")).unwrap(), "modules.json", ""),
        (|d| change(d.join("modules.json"), "Normalize", "Dense"), "modules.json", "Dense"),
        (|d| change(d.join("1_Pooling/config.json"), "false", "true"), "1_Pooling", "cls_token"),
        (|d| std::fs::remove_file(d.join("config.json")).unwrap(), "config.json", ""),
        (
            |d| change(d.join("config.json"), r#""model_type":"bert""#, r#""model_type":"t5""#),
            "config.json",
            "t5",
        ),
        (|d| change(d.join("config.json"), r#"heads":2"#, r#"heads":3"#), "config.json", "3 heads"),
        (
            |d| change(d.join("sentence_bert_config.json"), "7", "11"),
            "sentence_bert_config.json",
            "between 3 and 10",
        ),
        (
            |d| change(d.join("config.json"), r#"vocab_size":8"#, r#"vocab_size":7"#),
            "tokenizer.json",
            "more tokens than the 7",
        ),
        (
            |d| {
                let path = d.join("model.safetensors");
                let bytes = std::fs::read(&path).unwrap();
                write(path, &bytes[..bytes.len() - 9]).unwrap();
            },
            "model.safetensors",
            "",
        ),
        (
            |d| change(d.join("config.json"), r#"layers":2"#, r#"layers":3"#),
            "model.safetensors",
            "encoder.layer.2",
        ),
    ];
    for (damage, file, problem) in cases {
        let dir = tempfile::tempdir().unwrap();
        tiny(dir.path());
        damage(dir.path());
        let message = SentenceEncoder::load(dir.path()).unwrap_err().to_string();
        assert!(message.contains(file) && message.contains(problem), "{file}: {message}");
    }
}

/// Compares vectors of all-MiniLM-L6-v2 with those of sentence-transformers.
#[test]
#[ignore = "needs GLTA_DATA"]
fn minilm_agrees_with_sentence_transformers() {
    let dir = real_data("models/minilm-l6-v2");
    let encoder = SentenceEncoder::load(&dir).unwrap();
    let sentences = std::fs::read(dir.join("reference_sentences.json")).unwrap();
    let sentences: Vec<String> = serde_json::from_slice(&sentences).unwrap();
    let reference =
        candle_core::safetensors::load(dir.join("reference.safetensors"), &Device::Cpu).unwrap();
    let rows = |name: &str| reference[name].to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap();
    let (ids, mask) = (rows("input_ids"), rows("attention_mask"));
    for (row, sentence) in sentences.iter().enumerate() {
        let length = mask[row].iter().sum::<f32>() as usize;
        let expected: Vec<u32> = ids[row][..length].iter().map(|&id| id as u32).collect();
        assert_eq!(encoder.tokens(sentence).unwrap(), expected, "{sentence}");
    }
    assert_eq!(encoder.tokens(&sentences[7]).unwrap().len(), 256);

    let got = encoder.encode(&sentences).unwrap();
    let far = |name: &str| {
        let expected = rows(name).concat();
        got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max)
    };
    let (same, wide) = (far("embeddings"), far("embeddings_f32_weights"));
    println!("largest difference: {same:.1e}, from unrounded weights {wide:.1e}");
    assert!(same < 1e-5, "{same}");
    assert!(wide < 3e-4, "{wide}");
}
