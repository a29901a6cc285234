//! Creates checkpoints for tests and benches: random GPTQ models and plain models with equal
//! weights. The code is independent of the crate's packing code.
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::path::Path;

use half::f16;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};

/// Shape and format of a random checkpoint.
#[derive(Clone, Debug)]
pub struct Spec {
    pub vocab: usize,
    pub hidden: usize,
    pub inner: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Maximum number of tokens of a text.
    pub context: usize,
    pub bits: usize,
    /// Group size; 0 for one group.
    pub group: usize,
    pub act_order: bool,
    pub sym: bool,
    pub v2: bool,
    pub bias: bool,
    pub tied: bool,
    pub seed: u64,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            vocab: 96,
            hidden: 64,
            inner: 96,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 16,
            context: 2048,
            bits: 4,
            group: 32,
            act_order: false,
            sym: true,
            v2: false,
            bias: false,
            tied: true,
            seed: 1,
        }
    }
}

impl Spec {
    /// Returns the shape of SmolLM2-135M.
    pub fn smollm2() -> Self {
        Self {
            vocab: 49_152,
            hidden: 576,
            inner: 1536,
            layers: 30,
            heads: 9,
            kv_heads: 3,
            head_dim: 64,
            group: 64,
            ..Self::default()
        }
    }

    /// Returns the shape of LLaMA-2-7B, with 4 bits and group size 128.
    pub fn llama7b() -> Self {
        Self {
            vocab: 32_000,
            hidden: 4096,
            inner: 11_008,
            layers: 32,
            heads: 32,
            kv_heads: 32,
            head_dim: 128,
            context: 4096,
            group: 128,
            tied: false,
            ..Self::default()
        }
    }

    /// Returns small checkpoints of every format, and one with larger layers (heads of 128, several
    /// groups, more panels than a GPU has multiprocessors). Each comes with the largest relative
    /// errors in bf16 and f16 of its quantised model with the kernels on the host. The first one
    /// also comes with those of its plain model. Random models differ in how much they amplify
    /// rounding errors.
    pub fn formats() -> [(Self, [f64; 2]); 6] {
        let format = |bits, group, act_order, sym, tied| Self {
            bits,
            group,
            act_order,
            sym,
            tied,
            bias: act_order,
            ..Self::default()
        };
        let larger = Self {
            vocab: 1000,
            hidden: 512,
            inner: 5504,
            heads: 4,
            kv_heads: 2,
            head_dim: 128,
            group: 128,
            ..Self::default()
        };
        [
            (format(4, 32, true, false, true), [1.9e-2, 2.1e-3]),
            (format(2, 48, true, false, true), [3.7e-2, 4.5e-3]),
            (format(3, 0, false, false, false), [5.4e-2, 2.8e-3]),
            (format(4, 0, true, true, false), [8.4e-3, 9.0e-4]),
            (format(8, 32, false, true, true), [6.8e-3, 8.5e-4]),
            (larger, [3.8e-2, 5.8e-3]),
        ]
    }

    fn config(&self) -> Value {
        json!({
            "model_type": "llama", "hidden_act": "silu", "vocab_size": self.vocab,
            "hidden_size": self.hidden, "intermediate_size": self.inner,
            "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads, "head_dim": self.head_dim,
            "max_position_embeddings": self.context, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "tie_word_embeddings": self.tied, "attention_bias": self.bias, "mlp_bias": self.bias,
            "bos_token_id": 1, "eos_token_id": [2],
        })
    }

    fn linears(&self) -> Vec<(String, usize, usize)> {
        let (queries, keys) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        (0..self.layers)
            .flat_map(|i| {
                [
                    ("self_attn.q_proj", queries, self.hidden),
                    ("self_attn.k_proj", keys, self.hidden),
                    ("self_attn.v_proj", keys, self.hidden),
                    ("self_attn.o_proj", self.hidden, queries),
                    ("mlp.gate_proj", self.inner, self.hidden),
                    ("mlp.up_proj", self.inner, self.hidden),
                    ("mlp.down_proj", self.hidden, self.inner),
                ]
                .map(|(name, n, k)| (format!("model.layers.{i}.{name}"), n, k))
            })
            .collect()
    }
}

/// Tensors by name: dtype, shape, little-endian bytes.
pub type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

pub fn f16_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect()
}

pub fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn u32_bytes(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Sets field `index` of a packed stream whose words are `stride` apart.
fn set_field(
    words: &mut [u32],
    start: usize,
    stride: usize,
    bits: usize,
    index: usize,
    value: u32,
) {
    for bit in 0..bits {
        let at = index * bits + bit;
        words[start + at / 32 * stride] |= (value >> bit & 1) << (at % 32);
    }
}

fn uniform(rng: &mut ChaCha8Rng, n: usize, low: f32, high: f32) -> Vec<f32> {
    (0..n).map(|_| f16::from_f32(rng.random_range(low..high)).to_f32()).collect()
}

/// Returns the tensors of a quantised model, and of a plain f32 model with equal weights.
pub fn tensors(spec: &Spec) -> (Tensors, Tensors) {
    let mut rng = ChaCha8Rng::seed_from_u64(spec.seed);
    let (mut quantized, mut plain) = (Tensors::new(), Tensors::new());
    let mut both = |rng: &mut ChaCha8Rng, name: &str, shape: &[usize], low: f32, high: f32| {
        let values = uniform(rng, shape.iter().product(), low, high);
        quantized.insert(name.into(), (Dtype::F16, shape.to_vec(), f16_bytes(&values)));
        plain.insert(name.into(), (Dtype::F32, shape.to_vec(), f32_bytes(&values)));
    };
    both(&mut rng, "model.embed_tokens.weight", &[spec.vocab, spec.hidden], -0.3, 0.3);
    if !spec.tied {
        both(&mut rng, "lm_head.weight", &[spec.vocab, spec.hidden], -0.3, 0.3);
    }
    both(&mut rng, "model.norm.weight", &[spec.hidden], 0.5, 1.5);
    for i in 0..spec.layers {
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            both(&mut rng, &format!("model.layers.{i}.{norm}.weight"), &[spec.hidden], 0.5, 1.5);
        }
    }
    for (name, n, _) in spec.linears() {
        if spec.bias {
            both(&mut rng, &format!("{name}.bias"), &[n], -0.1, 0.1);
        }
    }
    for (name, n, k) in spec.linears() {
        let bits = spec.bits;
        let group = if spec.group == 0 { k } else { spec.group };
        let groups = k.div_ceil(group);
        let mut g_idx: Vec<u32> = (0..k).map(|i| (i / group) as u32).collect();
        if spec.act_order {
            g_idx.shuffle(&mut rng);
        }
        let top = (1u32 << bits) - 1;
        let scale = 2.0 / ((k as f32).sqrt() * (1 << bits) as f32);
        let scales = uniform(&mut rng, groups * n, 0.5 * scale, 1.5 * scale);
        let zeros: Vec<u32> = (0..groups * n)
            .map(|_| if spec.sym { 1 << (bits - 1) } else { rng.random_range(1..=top) })
            .collect();
        let mut qweight = vec![0u32; k * bits / 32 * n];
        let mut qzeros = vec![0u32; groups * n * bits / 32];
        let mut dense = vec![0f32; n * k];
        for (i, &z) in zeros.iter().enumerate() {
            let stored = if spec.v2 { z } else { z - 1 };
            set_field(&mut qzeros, i / n * (n * bits / 32), 1, bits, i % n, stored);
        }
        for row in 0..k {
            let g = g_idx[row] as usize;
            for col in 0..n {
                let q = rng.random_range(0..=top);
                set_field(&mut qweight, col, n, bits, row, q);
                dense[col * k + row] = (q as f32 - zeros[g * n + col] as f32) * scales[g * n + col];
            }
        }
        let mut insert = |part: &str, dtype, shape: &[usize], bytes| {
            quantized.insert(format!("{name}.{part}"), (dtype, shape.to_vec(), bytes));
        };
        insert("qweight", Dtype::I32, &[k * bits / 32, n], u32_bytes(&qweight));
        insert("qzeros", Dtype::I32, &[groups, n * bits / 32], u32_bytes(&qzeros));
        insert("scales", Dtype::F16, &[groups, n], f16_bytes(&scales));
        insert("g_idx", Dtype::I32, &[k], u32_bytes(&g_idx));
        plain.insert(format!("{name}.weight"), (Dtype::F32, vec![n, k], f32_bytes(&dense)));
    }
    (quantized, plain)
}

/// Serialises tensors as one safetensors file.
pub fn serialize(tensors: &Tensors) -> Vec<u8> {
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

pub fn write(dir: &Path, config: &Value, tensors: &Tensors) {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    std::fs::write(dir.join("model.safetensors"), serialize(tensors)).unwrap();
}

pub fn quantized_config(spec: &Spec) -> Value {
    let mut config = spec.config();
    config["quantization_config"] = json!({
        "quant_method": "gptq", "bits": spec.bits,
        "group_size": if spec.group == 0 { -1 } else { spec.group as i64 },
        "desc_act": spec.act_order, "sym": spec.sym,
        "checkpoint_format": if spec.v2 { "gptq_v2" } else { "gptq" },
    });
    config
}

pub fn plain_config(spec: &Spec) -> Value {
    spec.config()
}

/// Writes a quantised model to `dir/gptq` and a plain model with equal weights to `dir/plain`.
pub fn write_twins(dir: &Path, spec: &Spec) {
    let (quantized, plain) = tensors(spec);
    write(&dir.join("gptq"), &quantized_config(spec), &quantized);
    write(&dir.join("plain"), &plain_config(spec), &plain);
}

/// Quickly writes a large quantised checkpoint with random words and constant scales.
pub fn write_large(dir: &Path, spec: &Spec) {
    let mut rng = ChaCha8Rng::seed_from_u64(spec.seed);
    let mut tensors = Tensors::new();
    let mut words = |count: usize| -> Vec<u8> {
        let mut bytes = vec![0u8; 4 * count];
        rand::RngCore::fill_bytes(&mut rng, &mut bytes);
        bytes
    };
    for (name, n, k) in spec.linears() {
        let groups = k.div_ceil(spec.group);
        let mut insert = |part: &str, dtype, shape: &[usize], bytes| {
            tensors.insert(format!("{name}.{part}"), (dtype, shape.to_vec(), bytes));
        };
        let scale = 0.4 / (k as f32).sqrt();
        insert("qweight", Dtype::I32, &[k * spec.bits / 32, n], words(k * spec.bits / 32 * n));
        insert(
            "qzeros",
            Dtype::I32,
            &[groups, n * spec.bits / 32],
            vec![0x77; groups * n * spec.bits / 8],
        );
        insert("scales", Dtype::F16, &[groups, n], f16_bytes(&vec![scale; groups * n]));
        let mut g_idx: Vec<u32> = (0..k).map(|i| (i / spec.group) as u32).collect();
        if spec.act_order {
            // Layers with the same input have the same order, as after quantisation.
            g_idx.shuffle(&mut ChaCha8Rng::seed_from_u64(spec.seed));
        }
        insert("g_idx", Dtype::I32, &[k], u32_bytes(&g_idx));
    }
    let mut dense = |name: &str, shape: &[usize], value: f32| {
        let n: usize = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|i| value * (1.0 + (i % 17) as f32 / 17.0)).collect();
        tensors.insert(name.into(), (Dtype::F16, shape.to_vec(), f16_bytes(&values)));
    };
    dense("model.embed_tokens.weight", &[spec.vocab, spec.hidden], 0.02);
    if !spec.tied {
        dense("lm_head.weight", &[spec.vocab, spec.hidden], 0.02);
    }
    dense("model.norm.weight", &[spec.hidden], 1.0);
    for i in 0..spec.layers {
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            dense(&format!("model.layers.{i}.{norm}.weight"), &[spec.hidden], 1.0);
        }
    }
    write(dir, &quantized_config(spec), &tensors);
}
