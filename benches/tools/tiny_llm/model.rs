//! A trainable LLaMA: every weight is a variable, and all operations are candle's.

use candle_core::{D, DType, Device, IndexOp, Result, Tensor, Var};
use candle_nn::ops::{silu, softmax};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::{Value, json};

const HIDDEN: usize = 128;
const LAYERS: usize = 4;
const HEADS: usize = 4;
const KEY_HEADS: usize = 2;
const HEAD_DIM: usize = HIDDEN / HEADS;
const INNER: usize = 384;
const EPS: f64 = 1e-5;
const THETA: f32 = 10_000.0;

/// Weights by the names that checkpoints use.
pub(crate) struct Model {
    pub(crate) weights: Vec<(String, Var)>,
    cos: Tensor,
    sin: Tensor,
    mask: Tensor,
}

/// `config.json` of the checkpoint.
pub(crate) fn config(vocab: usize, bos: u32, eos: u32) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KEY_HEADS, "head_dim": HEAD_DIM,
        "vocab_size": vocab, "max_position_embeddings": 2048, "rms_norm_eps": EPS,
        "rope_theta": THETA, "tie_word_embeddings": true, "bos_token_id": bos,
        "eos_token_id": eos, "torch_dtype": "float16",
    })
}

impl Model {
    /// Normal weights with standard deviation 0.02, smaller for weights whose output is added to
    /// the residual stream; `length` is the longest text.
    pub(crate) fn new(vocab: usize, length: usize, seed: u64) -> Result<Self> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut weights = Vec::new();
        let mut add = |name: String, shape: &[usize], deviation: f32| -> Result<()> {
            let count = shape.iter().product();
            let values: Vec<f32> = match deviation {
                0.0 => vec![1.0; count],
                _ => (0..count).map(|_| deviation * normal(&mut random)).collect(),
            };
            weights.push((name, Var::from_vec(values, shape, &Device::Cpu)?));
            Ok(())
        };
        add("model.embed_tokens.weight".into(), &[vocab, HIDDEN], 0.05)?;
        let small = 0.04 / (2.0 * LAYERS as f32).sqrt();
        for layer in 0..LAYERS {
            let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
            add(name("input_layernorm"), &[HIDDEN], 0.0)?;
            add(name("self_attn.q_proj"), &[HEADS * HEAD_DIM, HIDDEN], 0.04)?;
            add(name("self_attn.k_proj"), &[KEY_HEADS * HEAD_DIM, HIDDEN], 0.04)?;
            add(name("self_attn.v_proj"), &[KEY_HEADS * HEAD_DIM, HIDDEN], 0.04)?;
            add(name("self_attn.o_proj"), &[HIDDEN, HEADS * HEAD_DIM], small)?;
            add(name("post_attention_layernorm"), &[HIDDEN], 0.0)?;
            add(name("mlp.gate_proj"), &[INNER, HIDDEN], 0.04)?;
            add(name("mlp.up_proj"), &[INNER, HIDDEN], 0.04)?;
            add(name("mlp.down_proj"), &[HIDDEN, INNER], small)?;
        }
        add("model.norm.weight".into(), &[HIDDEN], 0.0)?;
        let half = HEAD_DIM / 2;
        let angle =
            |place: usize, n: usize| place as f32 * THETA.powf(-2.0 * n as f32 / HEAD_DIM as f32);
        let angles: Vec<f32> =
            (0..length).flat_map(|place| (0..half).map(move |n| angle(place, n))).collect();
        let angles = Tensor::from_vec(angles, (length, half), &Device::Cpu)?;
        let mask: Vec<f32> = (0..length)
            .flat_map(|q| (0..length).map(move |k| if k > q { f32::NEG_INFINITY } else { 0.0 }))
            .collect();
        let mask = Tensor::from_vec(mask, (length, length), &Device::Cpu)?;
        Ok(Self { weights, cos: angles.cos()?, sin: angles.sin()?, mask })
    }

    /// Mean cross-entropy of every next token; `ids: (batch, length + 1)`.
    pub(crate) fn loss(&self, ids: &Tensor) -> Result<Tensor> {
        let length = ids.dim(1)? - 1;
        let (input, target) = (ids.narrow(1, 0, length)?, ids.narrow(1, 1, length)?);
        let logits = self.logits(&input.contiguous()?)?.flatten_to(1)?;
        candle_nn::loss::cross_entropy(&logits, &target.contiguous()?.flatten_all()?)
    }

    /// `ids: (batch, length)` to `(batch, length, vocab)`.
    fn logits(&self, ids: &Tensor) -> Result<Tensor> {
        let (batch, length) = ids.dims2()?;
        let mut weights = self.weights.iter().map(|(_, var)| var.as_tensor());
        let mut next = || weights.next().ok_or_else(|| candle_core::Error::msg("no weight left"));
        let table = next()?;
        let mut x = table.index_select(&ids.flatten_all()?, 0)?.reshape((batch, length, HIDDEN))?;
        for _ in 0..LAYERS {
            let h = norm(&x, next()?)?;
            let heads = |w: &Tensor, heads: usize| {
                linear(&h, w)?
                    .reshape((batch, length, heads, HEAD_DIM))?
                    .transpose(1, 2)?
                    .contiguous()
            };
            let q = self.rotate(&heads(next()?, HEADS)?)?;
            let k = self.rotate(&heads(next()?, KEY_HEADS)?)?;
            let v = heads(next()?, KEY_HEADS)?;
            let (k, v) = (spread(&k)?, spread(&v)?);
            let scores = (q.matmul(&k.t()?)? * (HEAD_DIM as f64).powf(-0.5))?;
            let scores = scores.broadcast_add(&self.mask.i((..length, ..length))?)?;
            let mixed = softmax(&scores, D::Minus1)?.matmul(&v)?;
            let mixed = mixed.transpose(1, 2)?.reshape((batch, length, HIDDEN))?;
            x = (x + linear(&mixed, next()?)?)?;
            let h = norm(&x, next()?)?;
            let gate = silu(&linear(&h, next()?)?)?;
            let inner = (gate * linear(&h, next()?)?)?;
            x = (x + linear(&inner, next()?)?)?;
        }
        linear(&norm(&x, next()?)?, table)
    }

    fn rotate(&self, x: &Tensor) -> Result<Tensor> {
        let length = x.dim(2)?;
        let (cos, sin) = (self.cos.i(..length)?, self.sin.i(..length)?);
        let half = HEAD_DIM / 2;
        let (a, b) = (x.narrow(3, 0, half)?, x.narrow(3, half, half)?);
        let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
        Tensor::cat(&[first, second], 3)
    }
}

/// Repeats key heads to the number of query heads.
fn spread(x: &Tensor) -> Result<Tensor> {
    let (batch, heads, length, dim) = x.dims4()?;
    x.unsqueeze(2)?
        .broadcast_as((batch, heads, HEADS / KEY_HEADS, length, dim))?
        .reshape((batch, HEADS, length, dim))
}

fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (batch, length, inputs) = x.dims3()?;
    let rows = x.reshape((batch * length, inputs))?;
    rows.matmul(&weight.t()?)?.reshape((batch, length, ()))
}

fn norm(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let square = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(square + EPS)?.sqrt()?)?.broadcast_mul(weight)
}

/// A normal number, by Box and Muller.
fn normal(random: &mut impl Rng) -> f32 {
    let (radius, angle) = (1.0 - random.random::<f32>(), random.random::<f32>());
    (-2.0 * radius.ln()).sqrt() * (std::f32::consts::TAU * angle).cos()
}

/// The weights in the format of a checkpoint.
pub(crate) fn halves(model: &Model) -> Result<std::collections::HashMap<String, Tensor>> {
    let half = |(name, var): &(String, Var)| Ok((name.clone(), var.to_dtype(DType::F16)?));
    model.weights.iter().map(half).collect()
}
