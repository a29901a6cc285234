//! Edits of a valid checkpoint by a script, which is the input. A checkpoint that loads must run.
#![no_main]
#![allow(clippy::unwrap_used)]

#[path = "../../crates/glta-llm/tests/support/mod.rs"]
mod support;

use candle_core::Device;
use glta_llm::{ForwardOptions, Llama, LlamaOptions};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value, json};
use std::cell::LazyCell;
use support::Spec;
use tempfile::TempDir;

/// The files of the checkpoint, and the folder for the edited ones.
struct Valid {
    dir: TempDir,
    config: Value,
    weights: Vec<u8>,
}

thread_local! {
    static VALID: LazyCell<Valid> = LazyCell::new(|| {
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
        let (tensors, _) = support::tensors(&spec);
        let config = support::quantized_config(&spec);
        let weights = support::serialize(&tensors);
        Valid { dir: tempfile::tempdir().unwrap(), config, weights }
    });
}

/// Reads numbers from the input; zeros after its end.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn below(&mut self, end: usize) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()])) % end.max(1)
    }

    /// A small, a large, or an arbitrary number.
    fn number(&mut self) -> u64 {
        match self.byte() {
            0 => u64::MAX,
            1 => 1 << 40,
            2 => (1 << 28) + 1,
            3 => 1 << 28,
            4..64 => self.below(4096) as u64,
            _ => self.byte().into(),
        }
    }

    fn value(&mut self) -> Value {
        match self.byte() % 8 {
            0 => Value::Null,
            1 => json!(-1),
            2 => json!(1e300),
            3 => json!(self.byte() % 2 == 0),
            4 => json!(["a", self.number()]),
            5 => json!({"rope_type": "llama3", "factor": self.number(), "low_freq_factor": 1,
                        "high_freq_factor": self.number()}),
            6 => json!("gptq_v2"),
            _ => json!(self.number()),
        }
    }

    fn key(&mut self, object: &Map<String, Value>) -> String {
        object.keys().nth(self.below(object.len())).cloned().unwrap_or_default()
    }
}

fn edit(script: &mut Script<'_>, config: &mut Value, header: &mut Value, data: &mut [u8]) {
    match script.byte() % 9 {
        0 => {
            let object = config.as_object_mut().unwrap();
            let key = script.key(object);
            object.insert(key, script.value());
        }
        1 => {
            if let Some(object) = config["quantization_config"].as_object_mut() {
                let key = script.key(object);
                object.insert(key, script.value());
            }
        }
        2 => {
            let object = header.as_object_mut().unwrap();
            let key = script.key(object);
            let entry = object.remove(&key);
            if script.byte() % 2 == 0 {
                object.insert(format!("{key}.bias"), entry.unwrap_or_default());
            }
        }
        3 => {
            let key = script.key(header.as_object().unwrap());
            let dtypes = ["I32", "F16", "BF16", "F32", "I16", "U8", "F8_E4M3", "F4"];
            let dtype = json!(dtypes[script.below(dtypes.len())]);
            // An earlier edit may have put another value here.
            if let Some(entry) = header[key].as_object_mut() {
                entry.insert("dtype".into(), dtype);
            }
        }
        4 | 5 => {
            let key = script.key(header.as_object().unwrap());
            let field = ["shape", "data_offsets"][script.below(2)];
            let list = header[key].get_mut(field).and_then(Value::as_array_mut);
            if let Some(list) = list.filter(|list| !list.is_empty()) {
                let at = script.below(list.len());
                list[at] = json!(script.number());
            }
        }
        6 => {
            let key = script.key(header.as_object().unwrap());
            header[key] = script.value();
        }
        7 => {
            // A sequence of equal bytes: NaN, invalid groups, zeros.
            let (at, byte) = (script.below(data.len()), script.byte());
            let end = (at + script.below(512)).min(data.len());
            data[at..end].fill(byte);
        }
        _ => {
            let at = script.below(data.len());
            data[at] = script.byte();
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let mut script = Script(input);
    VALID.with(|valid| {
        let length = u64::from_le_bytes(valid.weights[..8].try_into().unwrap()) as usize;
        let mut header: Value = serde_json::from_slice(&valid.weights[8..8 + length]).unwrap();
        let mut data = valid.weights[8 + length..].to_vec();
        let mut config = valid.config.clone();
        let raw = script.byte();
        for _ in 0..raw % 4 {
            edit(&mut script, &mut config, &mut header, &mut data);
        }
        let header = header.to_string().into_bytes();
        let mut weights = (header.len() as u64).to_le_bytes().to_vec();
        weights.extend(header);
        weights.extend(data);
        // An edit of single bytes.
        if raw >= 128 {
            let at = script.below(weights.len());
            weights[at] = script.byte();
        }
        if raw >= 192 {
            weights.truncate(script.below(weights.len()));
        }
        let dir = valid.dir.path();
        std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
        std::fs::write(dir.join("model.safetensors"), weights).unwrap();
        if let Ok(model) = Llama::load(dir, &LlamaOptions::default(), &Device::Cpu)
            && let Ok(x) = model.embed(&[1, 2, 3])
        {
            let _ = model.hidden_states(&x.unsqueeze(0).unwrap(), &[3], &ForwardOptions::default());
        }
    });
});
