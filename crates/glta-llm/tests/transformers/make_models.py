"""Hidden states, logits and input gradients of tiny random models, by transformers.

    pip install torch transformers safetensors numpy
    python make_models.py

Writes models.json (each model's config.json and how its weights are made) and
models.safetensors (what transformers computes) beside this file. Weights are not stored:
`family` in ../families.rs makes the same numbers.
"""

import json
import pathlib

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent
TOKENS = 44
SIZES = dict(
    vocab_size=48,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    rms_norm_eps=1e-5,
    bos_token_id=1,
    eos_token_id=2,
)
ROPE = dict(rope_theta=500.0)


def yarn(**more):
    return dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, **more, **ROPE)


MODELS = {
    "llama": dict(model_type="llama", rope_parameters=dict(rope_type="default", **ROPE)),
    "llama-biases": dict(model_type="llama", attention_bias=True, mlp_bias=True),
    "llama-linear": dict(
        model_type="llama",
        max_position_embeddings=16,
        rope_parameters=dict(rope_type="linear", factor=4.0, **ROPE),
    ),
    "llama-dynamic": dict(
        model_type="llama", rope_parameters=dict(rope_type="dynamic", factor=2.0, **ROPE)
    ),
    "llama-llama3": dict(
        model_type="llama",
        rope_parameters=dict(
            rope_type="llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=32,
            **ROPE,
        ),
    ),
    "llama-yarn": dict(model_type="llama", rope_parameters=yarn()),
    "llama-yarn-mscale": dict(
        model_type="llama",
        rope_parameters=yarn(mscale=1.0, mscale_all_dim=0.5, truncate=False, beta_fast=16.0),
    ),
    "llama-yarn-factor": dict(model_type="llama", rope_parameters=yarn(attention_factor=1.25)),
    "mistral": dict(model_type="mistral", sliding_window=None),
    "mistral-window": dict(model_type="mistral", sliding_window=7),
    "mistral-head-dim": dict(model_type="mistral", sliding_window=33, head_dim=16),
    "qwen2": dict(model_type="qwen2", tie_word_embeddings=True),
    "qwen2-window": dict(
        model_type="qwen2", use_sliding_window=True, sliding_window=9, max_window_layers=1
    ),
    "qwen3": dict(model_type="qwen3", head_dim=16, tie_word_embeddings=True),
    "qwen3-yarn": dict(
        model_type="qwen3", head_dim=8, attention_bias=True, rope_parameters=yarn()
    ),
    # Without the output layer and without `model.` in front of its tensors' names.
    "mistral-bare": dict(model_type="mistral", sliding_window=16, architectures=["MistralModel"]),
    "qwen3-bare": dict(
        model_type="qwen3", head_dim=16, tie_word_embeddings=True, architectures=["Qwen3Model"]
    ),
}


def splitmix(x):
    x = (x + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniform(name, count):
    """Numbers in [-1, 1) by the tensor's name."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        bits = splitmix(np.uint64(seed) + np.arange(count, dtype=np.uint64))
    return ((bits >> np.uint64(40)).astype(np.float64) / 2**23 - 1).astype(np.float32)


def values(name, shape):
    u = uniform(name, int(np.prod(shape))).reshape(shape)
    if "norm" in name:
        return np.float32(1) + np.float32(0.25) * u
    if name.endswith("bias"):
        return np.float32(0.25) * u
    return (np.float32(0.5) if "embed" in name or "lm_head" in name else np.float32(0.25)) * u


def main():
    described, outputs = {}, {}
    for name, own in MODELS.items():
        own = dict(SIZES, **own)
        bare = "architectures" in own
        config = AutoConfig.for_model(own["model_type"], **{
            key: value for key, value in own.items() if key != "model_type"
        })
        kind = AutoModel if bare else AutoModelForCausalLM
        model = kind.from_config(config, attn_implementation="eager").float().eval()
        state = model.state_dict()
        shapes = {
            key: list(tensor.shape)
            for key, tensor in state.items()
            if not (key == "lm_head.weight" and own.get("tie_word_embeddings"))
        }
        full = lambda key: ("model." if bare else "") + key
        with torch.no_grad():
            for key, shape in shapes.items():
                state[key].copy_(torch.from_numpy(values(full(key), shape)))
        base = model if bare else model.model
        ids = torch.from_numpy((np.arange(TOKENS) * 7 % 45 + 3).astype(np.int64))[None]
        embeds = base.embed_tokens(ids).detach().requires_grad_(True)
        hidden = base(inputs_embeds=embeds, use_cache=False).last_hidden_state
        cotangent = torch.from_numpy(uniform("cotangent", hidden.numel()).reshape(hidden.shape))
        (hidden * cotangent).sum().backward()
        numpy = lambda tensor: tensor.detach()[0].numpy().copy()
        outputs[f"{name}.hidden_states"] = numpy(hidden)
        outputs[f"{name}.gradient"] = numpy(embeds.grad)
        if not bare:
            outputs[f"{name}.logits"] = numpy(model.lm_head(hidden))[-3:]
        described[name] = dict(config=own, tensors=shapes)
    header = dict(transformers=transformers.__version__, tokens=TOKENS, models=described)
    (HERE / "models.json").write_text(json.dumps(header, indent=1) + "\n")
    save_file(outputs, HERE / "models.safetensors")


main()
