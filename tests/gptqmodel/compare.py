"""Compares our quantiser with GPTQModel's: the same model, text, bits and group size.

    pip install torch transformers safetensors gptqmodel==7.7.0
    cargo build --release --example gptq
    GPTQMODEL_CPU_WORKERS=2 python tests/gptqmodel/compare.py --model CHECKPOINT --text FILE --out DIR

1. writes DIR/plain: the checkpoint's weights, dequantised here, as f16;
2. quantises it with both programs on the first four fifths of the text;
3. opens our result with GPTQModel, puts what it dequantises into transformers' LLaMA (f32), stores that
   model's logits as reference.safetensors and lets `gptq verify` compare; says how far GPTQModel's own f16
   kernels are from them;
4. prints the perplexity of all three on the last fifth.
"""

import argparse
import json
import math
import pathlib
import shutil
import subprocess

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM


def fields(words, bits, count):
    """Unpacks `count` fields down the first axis of an int32 array."""
    words = words.view(np.uint32).astype(np.uint64)
    words = np.concatenate([words, np.zeros_like(words[:1])])
    bit = np.arange(count) * bits
    low = words[bit // 32] >> (bit % 32).astype(np.uint64)[:, None]
    high = words[bit // 32 + 1] << (32 - bit % 32).astype(np.uint64)[:, None]
    return ((low | high) & np.uint64(2**bits - 1)).astype(np.int64)


def dequantise(folder):
    """f32 weights of a symmetric or asymmetric version 1 or 2 checkpoint."""
    config = json.loads((folder / "config.json").read_text())
    q = config.get("quantization_config") or json.loads((folder / "quantize_config.json").read_text())
    bits, v1 = q["bits"], q.get("checkpoint_format", "gptq") == "gptq"
    out, packed = {}, {}
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, "pt") as f:
            for name in f.keys():
                base, _, part = name.rpartition(".")
                if part in ("qweight", "qzeros", "scales", "g_idx"):
                    packed.setdefault(base, {})[part] = f.get_tensor(name).numpy()
                else:
                    out[name] = f.get_tensor(name).float()
    for base, t in packed.items():
        k, n = len(t["g_idx"]), t["scales"].shape[1]
        weight = fields(t["qweight"], bits, k)
        zeros = t["qzeros"].view(np.uint32)
        if v1 and bits != 3:
            one_each = np.uint32(sum(1 << i for i in range(0, 32, bits)))
            zeros = zeros + one_each
        zeros = fields(np.ascontiguousarray(zeros.T).view(np.int32), bits, n).T
        if v1 and bits == 3:
            zeros = (zeros + 1) % 8
        g = t["g_idx"]
        w = (weight - zeros[g]).astype(np.float32) * t["scales"].astype(np.float32)[g]
        out[f"{base}.weight"] = torch.from_numpy(np.ascontiguousarray(w.T))
    return config, out


def f32_model(config, weights):
    config = {k: v for k, v in config.items() if k != "quantization_config"}
    model = LlamaForCausalLM(LlamaConfig(**config)).float().eval()
    result = model.load_state_dict(weights, strict=False)
    missing = [n for n in result.missing_keys if n != "lm_head.weight" or not config.get("tie_word_embeddings")]
    assert not missing and not result.unexpected_keys, result
    return model


def perplexity(model, ids, length=512):
    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(ids) - length + 1, length):
            x = torch.tensor([ids[start : start + length]])
            total += model(x, labels=x).loss.item() * (length - 1)
            count += length - 1
    return math.exp(total / count)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--text", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--desc-act", action="store_true")
    parser.add_argument("--asym", action="store_true")
    parser.add_argument("--gptq", default="target/release/examples/gptq", help="the example's binary")
    args = parser.parse_args()
    sequences, length = 32, 256
    torch.manual_seed(0)

    plain, ours, theirs = (args.out / name for name in ("plain", "glta", "gptqmodel"))
    plain.mkdir(parents=True, exist_ok=True)
    config, weights = dequantise(args.model)
    config = {k: v for k, v in config.items() if k != "quantization_config"} | {"torch_dtype": "float16"}
    (plain / "config.json").write_text(json.dumps(config, indent=2))
    weights = {name: w.half().contiguous() for name, w in weights.items()}
    save_file(weights, plain / "model.safetensors", {"format": "pt"})
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        if (args.model / name).exists():
            shutil.copyfile(args.model / name, plain / name)

    text = args.text.read_text(errors="replace")
    cut = len(text) * 4 // 5
    calibration = args.out / "calibration.txt"
    calibration.write_text(text[:cut])
    tokenizer = AutoTokenizer.from_pretrained(plain)
    ids = tokenizer(text[:cut], add_special_tokens=False)["input_ids"]
    held_out = tokenizer(text[cut:], add_special_tokens=False)["input_ids"]

    flags = ["--desc-act"] * args.desc_act + ["--asym"] * args.asym
    subprocess.run(
        [args.gptq, "quantize", "--model", plain, "--bits", str(args.bits), "--group-size", str(args.group_size)]
        + flags
        + ["--calibration", calibration, "--sequences", str(sequences), "--sequence-length", str(length), "--out", ours],
        check=True,
        stderr=subprocess.DEVNULL,
    )

    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig

    spacing = len(ids) // sequences
    rows = [ids[i * spacing : i * spacing + length] for i in range(sequences)]
    model = GPTQModel.load(
        str(plain),
        QuantizeConfig(bits=args.bits, group_size=args.group_size, desc_act=args.desc_act, sym=not args.asym),
        device="cpu",
    )
    model.quantize([{"input_ids": row, "attention_mask": [1] * length} for row in rows], batch_size=1)
    model.save(str(theirs))

    config, weights = dequantise(ours)
    mine = f32_model(config, weights)
    opened = GPTQModel.load(str(ours), device="cpu", backend=BACKEND.TORCH)
    worst = 0.0
    for name, module in opened.model.named_modules():
        if hasattr(module, "dequantize_weight"):
            w = module.dequantize_weight().float().T  # it keeps inputs by outputs
            expected = weights[f"{name}.weight"]
            worst = max(worst, ((w - expected).norm() / expected.norm()).item())
    prompt = torch.tensor([held_out[:64]])
    with torch.no_grad():
        out = mine(prompt, output_hidden_states=True)
        kernels = opened.model(prompt).logits.float()
    embeds = mine.get_input_embeddings()(prompt).detach().requires_grad_()
    cotangent = torch.randn(embeds.shape)
    hidden = mine.model(inputs_embeds=embeds).last_hidden_state
    (hidden * cotangent).sum().backward()
    save_file(
        {
            "grad.inputs_embeds": embeds[0].detach().contiguous(),
            "grad.cotangent": cotangent[0],
            "grad.d_inputs_embeds": embeds.grad[0],
            "p0.input_ids": prompt[0].int(),
            "p0.hidden_states": out.hidden_states[-1][0].contiguous(),
            "p0.logits": out.logits[0].contiguous(),
        },
        ours / "reference.safetensors",
    )
    verified = subprocess.run([args.gptq, "verify", "--model", ours], capture_output=True, text=True)
    report = {
        "setting": {"bits": args.bits, "group_size": args.group_size, "desc_act": args.desc_act, "sym": not args.asym},
        "weights_as_gptqmodel_reads_them_rel_err": worst,
        "gptqmodel_f16_logits_rel_err": ((kernels - out.logits).norm() / out.logits.norm()).item(),
        "verify": json.loads(verified.stdout or "{}") | {"exit_code": verified.returncode},
        "held_out_tokens": len(held_out),
        "perplexity": {
            "plain": perplexity(f32_model(*dequantised_plain(plain)), held_out),
            "glta": perplexity(mine, held_out),
            "gptqmodel": perplexity(f32_model(*dequantise(theirs)), held_out),
        },
    }
    print(json.dumps(report))


def dequantised_plain(folder):
    config = json.loads((folder / "config.json").read_text())
    return config, {name: w.float() for name, w in load_file(folder / "model.safetensors").items()}


if __name__ == "__main__":
    main()
