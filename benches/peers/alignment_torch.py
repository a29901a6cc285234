"""User-item alignment in PyTorch and transformers with dequantised weights, beside
`benches/alignment.rs` in one run: the writing of profiles, and a training step with 32 users.

    pip install torch transformers safetensors numpy
    python benches/peers/alignment_torch.py CHECKPOINT [--layers 4,30] [--profiles 1000]

The bench of this repository runs first and writes the prompts of the profiles and the sizes of its
steps. PyTorch then writes profiles for the same prompts (greedy, batches of 64 sorted by length)
and trains a user projector, slots and a tied head through the frozen layers with Adam. All its
prompts have the mean length, so it computes no padding. It recomputes nothing. Without bf16
instructions both programs use f32. The script prints a table.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import numpy as np
import torch
import transformers
from safetensors import safe_open
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

ROOT = pathlib.Path(__file__).resolve().parents[2]


def fields(words, bits, count):
    """Unpacks `count` fields down the first axis of an int32 array; 2, 4 or 8 bits."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    words = words.view(np.uint32)[:, None, :] >> shifts[None, :, None]
    return (words & np.uint32(2**bits - 1)).reshape(-1, words.shape[2])[:count].astype(np.int64)


def dequantise(folder):
    """f32 weights of a GPTQ checkpoint of version 1 or 2 with 2, 4 or 8 bits."""
    config = json.loads((folder / "config.json").read_text())
    q = config.get("quantization_config") or json.loads((folder / "quantize_config.json").read_text())
    bits, one = q["bits"], int(q.get("checkpoint_format", "gptq") == "gptq")
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
        scales = t["scales"].astype(np.float32)
        inputs = t["qweight"].shape[0] * 32 // bits
        groups = t.get("g_idx", np.arange(inputs) // (inputs // len(scales)))
        weight = fields(t["qweight"], bits, inputs)
        zeros = fields(np.ascontiguousarray(t["qzeros"].T), bits, scales.shape[1]).T + one
        weight = (weight - zeros[groups]).astype(np.float32) * scales[groups]
        out[f"{base}.weight"] = torch.from_numpy(np.ascontiguousarray(weight.T))
    config.pop("quantization_config", None)
    return config, out


def model(config, weights, layers):
    config = LlamaConfig(**{**config, "num_hidden_layers": layers})
    frozen = LlamaForCausalLM(config).float().eval().requires_grad_(False)
    result = frozen.load_state_dict(weights, strict=False)
    missing = [name for name in result.missing_keys if name != "lm_head.weight"]
    assert not missing, missing
    return frozen


def write_profiles(frozen, folder, work):
    """Seconds for the profiles of all prompts."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    prompts = sorted(work["prompts"], key=lambda text: len(tokenizer(text)["input_ids"]))
    start = time.perf_counter()
    for at in range(0, len(prompts), 64):
        batch = tokenizer(prompts[at:at + 64], return_tensors="pt", padding=True)
        with torch.no_grad():
            out = frozen.generate(
                **batch, max_new_tokens=work["max_tokens"], do_sample=False,
                pad_token_id=tokenizer.pad_token_id)
        tokenizer.batch_decode(out[:, batch["input_ids"].shape[1]:])
    return time.perf_counter() - start


def training_step(frozen, work, runs=8):
    """The median seconds of a step."""
    rows, items, slots = work["rows"], work["items"], work["slots"]
    length = work["prefix"] + round(work["tokens"] / rows)
    hidden = frozen.config.hidden_size
    nodes = torch.randn(items, work["graph"])
    users = torch.randn(rows, work["graph"])
    tokens = torch.randint(3, frozen.config.vocab_size, (rows, length))
    texts = frozen.model.embed_tokens(tokens).detach()
    targets = torch.randint(0, items, (rows * slots,))
    projector = torch.nn.Linear(work["graph"], hidden)
    head = torch.nn.Linear(hidden, work["graph"], bias=False)
    own = torch.nn.Parameter(0.02 * torch.randn(slots, hidden))
    adam = torch.optim.Adam([*projector.parameters(), *head.parameters(), own], lr=1e-3)

    def step():
        user = projector(users)[:, None]
        tail = own[None] + user
        prompt = torch.cat([texts[:, :length - slots - 1], user, tail], 1)
        states = frozen.model(inputs_embeds=prompt, use_cache=False).last_hidden_state
        logits = head(states[:, -slots:].reshape(rows * slots, hidden)) @ nodes.T
        loss = torch.nn.functional.cross_entropy(logits, targets)
        adam.zero_grad()
        loss.backward()
        adam.step()
        return loss.item()

    seconds = []
    for _ in range(runs + 2):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("--layers", default="4,30")
    parser.add_argument("--profiles", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bench", help="the compiled bench, instead of cargo")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    folder = args.checkpoint.resolve()
    with tempfile.TemporaryDirectory() as out:
        out = pathlib.Path(out) / "work.json"
        command = [args.bench] if args.bench else ["cargo", "bench", "-p", "glta", "--bench", "alignment", "--"]
        command += ["--llm", str(folder), "--layers", args.layers, "--profiles", str(args.profiles)]
        subprocess.run([*command, "--out", str(out)], cwd=ROOT, check=True)
        ours = json.loads(out.read_text())
    config, weights = dequantise(folder)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}", flush=True)
    print("| what | GLTA, s | PyTorch, s | ratio |\n|---|---:|---:|---:|", flush=True)
    for work in ours["steps"]:
        theirs = training_step(model(config, weights, work["layers"]), work)
        name = (f"step, {work['layers']} layers, {work['rows']} prompts of "
                f"{work['prefix']} + {work['tokens'] / work['rows']:.0f} tokens")
        print(f"| {name} | {work['seconds']:.3f} | {theirs:.3f} "
              f"| {theirs / work['seconds']:.2f} |", flush=True)
    work = ours["profiles"]
    theirs = write_profiles(model(config, weights, config["num_hidden_layers"]), folder, work)
    print(f"| {len(work['prompts'])} profiles | {work['seconds']:.1f} | {theirs:.1f} "
          f"| {theirs / work['seconds']:.2f} |", flush=True)


if __name__ == "__main__":
    main()
