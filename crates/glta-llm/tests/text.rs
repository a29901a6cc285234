//! Compares tokenisation with transformers (`transformers/make_tokenizers.py`), and checks the
//! generated text in the context of its prompt.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod support;

use std::path::{Path, PathBuf};

use candle_core::{Device, safetensors};
use glta_llm::{ChatTemplate, GenerateOptions, Llama, LlamaOptions, Tokenizer};
use serde_json::{Value, json};

use support::Spec;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transformers")
}

fn splitmix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Returns the prompts of the script.
fn prompts() -> Vec<String> {
    let text = std::fs::read_to_string(fixtures().join("prompts.json")).unwrap();
    let described: Value = serde_json::from_str(&text).unwrap();
    let number = |key: &str| described[key].as_u64().unwrap();
    let fragments: Vec<&str> =
        described["fragments"].as_array().unwrap().iter().map(|f| f.as_str().unwrap()).collect();
    let pick =
        |n: u64, i: u64| fragments[(splitmix(n * 100 + i + 1) % fragments.len() as u64) as usize];
    let prompt = |n: u64| (0..splitmix(n) % number("length") + 1).map(|i| pick(n, i)).collect();
    (0..number("prompts")).map(prompt).collect()
}

const KINDS: [&str; 4] = ["llama2", "llama2-legacy", "mistral", "llama3"];

#[test]
fn ids_equal_those_of_transformers() {
    let prompts = prompts();
    assert_eq!(prompts.len(), 1000);
    let outputs = safetensors::load(fixtures().join("prompts.safetensors"), &Device::Cpu).unwrap();
    let numbers = |name: String| -> Vec<u32> {
        let tensor = outputs[&name].to_dtype(candle_core::DType::U32).unwrap();
        tensor.to_vec1().unwrap()
    };
    for kind in KINDS {
        let tokenizer = Tokenizer::load(fixtures().join(kind)).unwrap();
        let ids = numbers(format!("{kind}.ids"));
        let mut at = 0;
        let mut doubled = 0;
        for (prompt, length) in prompts.iter().zip(numbers(format!("{kind}.lengths"))) {
            let expected = &ids[at..at + length as usize];
            at += length as usize;
            let got = tokenizer.encode(prompt, true).unwrap();
            if prompt.starts_with("<s>") {
                // The only difference is the missing second start token.
                doubled += 1;
                assert_eq!(expected[..2], [expected[0]; 2], "{kind}: {prompt:?}");
                assert_ne!(got.get(1), Some(&got[0]).filter(|_| !prompt[3..].starts_with("<s>")));
                continue;
            }
            assert_eq!(got, expected, "{kind}: {prompt:?}");
        }
        assert_eq!(at, ids.len());
        println!("{kind}: {} ids, {doubled} prompts with a start token of their own", ids.len());
    }
}

#[test]
fn pieces_of_a_prompt_have_the_ids_of_the_whole() {
    for kind in KINDS {
        let tokenizer = Tokenizer::load(fixtures().join(kind)).unwrap();
        let mut joined = 0;
        for (start, rest) in [
            ("[INST] User token: ", "\nItem tokens: tea"),
            ("Items:", " the customer"),
            ("a", "customer"),
            ("(", "café, 日本語)"),
            ("one\n", "\n\ntwo"),
        ] {
            let whole = tokenizer.encode(&format!("{start}{rest}"), true).unwrap();
            let first = tokenizer.encode(start, true).unwrap();
            // If no token spans the boundary, the parts have the ids of the whole text.
            if let Some(expected) = whole.strip_prefix(&first[..]) {
                joined += 1;
                assert_eq!(tokenizer.encode_continuation(rest).unwrap(), expected, "{kind}");
                assert_eq!(tokenizer.decode_continuation(&first, expected).unwrap(), rest);
            }
        }
        assert!(joined >= 3, "{kind}: {joined}");
        assert!(tokenizer.encode_continuation("").unwrap().is_empty());
    }
}

#[test]
fn text_is_decoded_behind_what_stands_before_it() {
    for kind in KINDS {
        let tokenizer = Tokenizer::load(fixtures().join(kind)).unwrap();
        let text = "The customer has bought tea 🍵 and café";
        let ids = tokenizer.encode(text, true).unwrap();
        for cut in 1..ids.len() {
            let (before, new) = ids.split_at(cut);
            let start = tokenizer.decode(before).unwrap();
            let added = tokenizer.decode_continuation(before, new).unwrap();
            // A character of several tokens belongs to the text that completes it.
            let whole = format!("{}{added}", start.trim_end_matches('\u{fffd}'));
            assert_eq!(whole, text, "{kind}: {cut}");
        }
        assert_eq!(tokenizer.decode_continuation(&[], &ids).unwrap(), text);
        assert_eq!(tokenizer.decode_continuation(&ids, &[]).unwrap(), "");
    }
}

/// Creates a tiny model with this tokenizer that always generates the next higher id.
fn counting(dir: &Path, kind: &str, config: Value) -> (Llama, Tokenizer) {
    let folder = fixtures().join(kind);
    let vocab = Tokenizer::load(&folder).unwrap().vocab_size();
    let spec = Spec { vocab, layers: 1, tied: false, ..Spec::default() };
    let (_, mut tensors) = support::tensors(&spec);
    // The layers add nothing, each embedding is a sine and a cosine, and the output layer has its
    // maximum at the next embedding.
    for (name, (_, _, bytes)) in &mut tensors {
        if name.contains("proj") {
            bytes.fill(0);
        }
    }
    let angle =
        |id: usize, k: usize| id as f32 * (k + 1) as f32 * std::f32::consts::TAU / vocab as f32;
    let table = |shift: usize| {
        let row = |id: usize| {
            (0..spec.hidden).map(move |k| match k % 2 {
                0 => angle(id + vocab - shift, k / 2).cos(),
                _ => angle(id + vocab - shift, k / 2).sin(),
            })
        };
        support::f32_bytes(&(0..vocab).flat_map(row).collect::<Vec<f32>>())
    };
    tensors.get_mut("model.embed_tokens.weight").unwrap().2 = table(0);
    tensors.get_mut("lm_head.weight").unwrap().2 = table(1);
    tensors.get_mut("model.norm.weight").unwrap().2 = support::f32_bytes(&[1.0; 64]);
    let mut all = support::plain_config(&spec);
    all.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    support::write(dir, &all, &tensors);
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(folder.join(name), dir.join(name)).unwrap();
    }
    let llama = Llama::load(dir, &LlamaOptions::default(), &Device::Cpu).unwrap();
    (llama, Tokenizer::load(dir).unwrap())
}

#[test]
fn answers_keep_their_first_space_and_stop_at_texts_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let (llama, tokenizer) = counting(dir.path(), "llama2", json!({"eos_token_id": 2}));
    // Decode a word that follows another one, by their ids.
    let decode = |id: u32| tokenizer.decode_continuation(&[300], &[id]).unwrap();
    let (prompt, next) = (259..tokenizer.vocab_size() as u32 - 3)
        .find_map(|id| {
            let prompt = format!("a{}", decode(id));
            let last = *tokenizer.encode(&prompt, true).unwrap().last().unwrap();
            let words = prompt.starts_with("a ") && decode(id + 1).starts_with(' ');
            (words && last == id && decode(id + 1).len() > 2).then_some((prompt, id + 1))
        })
        .unwrap();
    let options = GenerateOptions { max_new_tokens: 3, ..Default::default() };
    let ids = tokenizer.encode(&prompt, true).unwrap();
    let expected = tokenizer.decode_continuation(&ids, &[next, next + 1, next + 2]).unwrap();
    assert!(expected.starts_with(' '), "{expected:?}");
    let run = |prompt: &str, options: &GenerateOptions| {
        llama.generate_text(&tokenizer, &[prompt], options).unwrap().remove(0)
    };
    assert_eq!(run(&prompt, &options), expected);
    let first = tokenizer.decode_continuation(&ids, &[next]).unwrap();
    let stop = GenerateOptions { stop: vec![first], ..options.clone() };
    assert_eq!(run(&prompt, &stop), "");
    // A start token in the prompt changes nothing.
    assert_eq!(run(&format!("<s>{prompt}"), &options), expected);
}

#[test]
fn the_ends_of_generation_config_and_special_stop_texts_count() {
    let size = Tokenizer::load(fixtures().join("llama3")).unwrap().vocab_size() as u32;
    // `<|im_end|>` has the last id, after which the count starts again.
    let end = size - 1;
    let run = |config: Value, generation: Option<Value>, stop: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        if let Some(generation) = generation {
            std::fs::write(dir.path().join("generation_config.json"), generation.to_string())
                .unwrap();
        }
        let (llama, tokenizer) = counting(dir.path(), "llama3", config);
        assert_eq!(tokenizer.token_to_id("<|im_end|>"), Some(end));
        let prompt = tokenizer.decode_continuation(&[40], &[end - 6]).unwrap();
        let ids = tokenizer.encode(&prompt, true).unwrap();
        assert_eq!(ids.last(), Some(&(end - 6)), "{prompt:?}");
        let stop = stop.iter().map(|&s| s.to_owned()).collect();
        let options = GenerateOptions { max_new_tokens: 9, stop, ..Default::default() };
        let text = llama.generate_text(&tokenizer, &[&prompt], &options).unwrap().remove(0);
        // Stop texts can lie in tokens before the one that ends the text.
        (1..9)
            .find(|&n| {
                let new: Vec<u32> = (0..n).map(|i| (end - 5 + i) % size).collect();
                tokenizer.decode_continuation(&ids, &new).unwrap() == text
            })
            .unwrap()
    };
    let other = json!({"eos_token_id": end + 100});
    // Two word tokens, and then `<s>`, `</s>`, `<|im_start|>` and `<|im_end|>`, which have no text.
    assert_eq!(run(json!({"eos_token_id": end - 4}), None, &[]), 1);
    assert_eq!(run(other.clone(), Some(json!({"eos_token_id": [0, end - 4]})), &[]), 1);
    assert_eq!(run(json!({"eos_token_id": end - 4}), Some(json!({"eos_token_id": end})), &[]), 2);
    // No file of the model names an end token, so the tokenizer's `<|im_end|>` applies.
    assert_eq!(run(json!({"eos_token_id": null}), None, &[]), 2);
    for stop in ["<|im_end|>", "</s>", "<s></s>"] {
        assert_eq!(run(other.clone(), None, &[stop]), 2, "{stop}");
    }
}

/// Loads the tokenizer of `kind` with an edited `tokenizer_config.json`.
fn edited(kind: &str, edit: impl FnOnce(&mut Value, &mut Value)) -> Result<Tokenizer, String> {
    let dir = tempfile::tempdir().unwrap();
    let read = |name: &str| -> Value {
        let text = std::fs::read_to_string(fixtures().join(kind).join(name)).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let (mut tokenizer, mut config) = (read("tokenizer.json"), read("tokenizer_config.json"));
    edit(&mut tokenizer, &mut config);
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    Tokenizer::load(dir.path()).map_err(|e| e.to_string())
}

#[test]
fn tokens_that_only_the_settings_declare_are_read() {
    let text = "<|im_start|>user\nhi<|im_end|>";
    let whole = Tokenizer::load(fixtures().join("llama3")).unwrap();
    let id = |token: &str| whole.token_to_id(token).unwrap();
    let ids = whole.encode(text, false).unwrap();
    assert_eq!((ids[0], ids[ids.len() - 1]), (id("<|im_start|>"), id("<|im_end|>")));
    assert_eq!(whole.decode(&ids).unwrap(), "user\nhi");

    // The file has only named tokens, without their ids.
    let named = edited("llama3", |_, config| {
        config.as_object_mut().unwrap().remove("added_tokens_decoder");
        config["additional_special_tokens"] = json!(["<|im_start|>"]);
    })
    .unwrap();
    let named_ids = named.encode(text, false).unwrap();
    assert_eq!(named.decode(&named_ids).unwrap(), "user\nhi");
    assert!(named_ids.len() < 8 && named.eos_ids() == [named_ids[named_ids.len() - 1]]);

    let invalid = edited("llama3", |_, config| {
        let tokens = config["added_tokens_decoder"].as_object_mut().unwrap();
        let (_, token) = tokens.iter().next_back().unwrap();
        let token = token.clone();
        tokens.insert("7".into(), token);
    })
    .unwrap_err();
    assert!(invalid.contains("tokenizer_config.json") && invalid.contains("id 7"), "{invalid}");
}

#[test]
fn a_start_token_is_added_where_only_the_settings_ask_for_it() {
    let ids = |edit: fn(&mut Value, &mut Value)| {
        edited("mistral", edit).unwrap().encode("tea", true).unwrap()
    };
    let with = ids(|_, _| ());
    assert_eq!(with[0], 1);
    let without = ids(|tokenizer, _| tokenizer["post_processor"] = Value::Null);
    assert_eq!(without, with[1..]);
    let asked = ids(|tokenizer, config| {
        tokenizer["post_processor"] = Value::Null;
        config["add_bos_token"] = json!(true);
    });
    assert_eq!(asked, with);
    let both = ids(|tokenizer, config| {
        tokenizer["post_processor"] = Value::Null;
        config["add_bos_token"] = json!(true);
        config["add_eos_token"] = json!(true);
    });
    assert_eq!(both, [&with[..], &[2]].concat());
}

#[test]
fn a_tokenizer_that_is_none_is_called_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let message = |name: &str, bytes: &[u8]| {
        std::fs::write(dir.path().join(name), bytes).unwrap();
        Tokenizer::load(dir.path()).unwrap_err().to_string()
    };
    let only = message("tokenizer.model", b"\n\x0e\n\x05<unk>");
    assert!(only.contains("tokenizer.json") && only.contains("only tokenizer.model"), "{only}");
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1842767\n";
    let pointer = message("tokenizer.json", pointer);
    for part in ["tokenizer.json", "Git LFS", "1842767", "git lfs pull"] {
        assert!(pointer.contains(part), "{pointer}");
    }
    let half = message("tokenizer.json", b"{\"version\": \"1.0\", \"model\": {\"vo");
    assert!(half.contains("incomplete download"), "{half}");
    std::fs::copy(fixtures().join("mistral/tokenizer.json"), dir.path().join("tokenizer.json"))
        .unwrap();
    let broken = message("tokenizer_config.json", b"<html>");
    assert!(broken.contains("tokenizer_config.json") && broken.contains("HTML"), "{broken}");
}

#[test]
fn chat_templates_give_the_text_of_transformers() {
    let text = std::fs::read_to_string(fixtures().join("chats.json")).unwrap();
    let described: Value = serde_json::from_str(&text).unwrap();
    let messages: Vec<(&str, &str)> = described["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| (m["role"].as_str().unwrap(), m["content"].as_str().unwrap()))
        .collect();
    let chats = described["chats"].as_object().unwrap();
    assert_eq!(chats.len(), 5);
    for (name, chat) in chats {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = described["tokens"].clone();
        settings["chat_template"] = chat["template"].clone();
        std::fs::write(dir.path().join("tokenizer_config.json"), settings.to_string()).unwrap();
        let template = ChatTemplate::load(dir.path()).unwrap().unwrap();
        assert_eq!(template.render(&messages).unwrap(), chat["text"].as_str().unwrap(), "{name}");
    }
}
