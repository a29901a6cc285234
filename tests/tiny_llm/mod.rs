//! A small random GPTQ LLaMA with a byte-level tokenizer, for tests and examples without a
//! download. Its output is meaningless, but every format, kernel and gradient is real.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

mod checkpoint;

use std::path::Path;

use checkpoint::{Spec, quantized_config, tensors, write as write_checkpoint};
use serde_json::{Map, json};

/// Writes `config.json`, `model.safetensors` and `tokenizer.json` into `dir`.
pub fn write(dir: &Path) {
    let spec = Spec { vocab: 260, layers: 2, ..Spec::default() };
    let (quantized, _) = tensors(&spec);
    write_checkpoint(dir, &quantized_config(&spec), &quantized);
    std::fs::write(dir.join("tokenizer.json"), tokenizer().to_string()).unwrap();
}

/// Byte-level BPE without merges: three special tokens, then one per byte.
fn tokenizer() -> serde_json::Value {
    let special = ["<unk>", "<s>", "</s>"];
    let mut vocabulary: Map<String, serde_json::Value> =
        special.iter().zip(0..).map(|(token, id)| ((*token).to_owned(), json!(id))).collect();
    // GPT-2's table: printable bytes map to themselves, the others to 256 and above.
    let mut moved = 256;
    for byte in 0u32..256 {
        let printable = matches!(byte, 33..=126 | 161..=172 | 174..=255);
        let code = if printable { byte } else { moved };
        moved += u32::from(!printable);
        let char = char::from_u32(code).unwrap();
        vocabulary.insert(char.to_string(), json!(3 + byte));
    }
    let added: Vec<serde_json::Value> = special
        .iter()
        .zip(0..)
        .map(|(content, id)| {
            json!({"id": id, "content": content, "special": true, "single_word": false,
                   "lstrip": false, "rstrip": false, "normalized": false})
        })
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": added,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false,
                          "trim_offsets": true, "use_regex": false},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false,
                    "trim_offsets": true, "use_regex": false},
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
                  "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "fuse_unk": false, "byte_fallback": false,
                  "vocab": vocabulary, "merges": []},
    })
}
