"""The linear layers of LLaMA-2-7B in PyTorch with 4-bit GPTQ weights: dequantise to bf16,
multiply with cuBLAS. Tokens per second on the shapes of `benches/cuda/speed.rs`; attention,
norms and everything else are left out, which favours PyTorch. Prints lines of JSON.

    pip install torch
    python benches/peers/llm_torch_dequantise.py [--layers 32]
"""

import argparse
import json
import statistics
import time

import torch

HIDDEN, INNER, VOCAB, GROUP = 4096, 11008, 32000, 128
SHAPES = [(HIDDEN, HIDDEN)] * 4 + [(INNER, HIDDEN)] * 2 + [(HIDDEN, INNER)]

parser = argparse.ArgumentParser()
parser.add_argument("--layers", type=int, default=32)
args = parser.parse_args()
device = "cuda"
SHIFTS = torch.arange(0, 32, 4, device=device, dtype=torch.int32)


def layer(n, k):
    """Words (k / 8, n), scales and zero points (k / group, n)."""
    words = torch.randint(-(2**31), 2**31 - 1, (k // 8, n), dtype=torch.int32, device=device)
    scales = torch.full((k // GROUP, n), 0.4 / k**0.5, dtype=torch.bfloat16, device=device)
    zeros = torch.full((k // GROUP, n), 8, dtype=torch.bfloat16, device=device)
    return words, scales, zeros


@torch.compile(dynamic=False)
def dequantise(words, scales, zeros):
    """The weight transposed, (k, n)."""
    fields = (words[:, None, :] >> SHIFTS[None, :, None]) & 15
    fields = fields.reshape(-1, GROUP, words.shape[1]).to(torch.bfloat16)
    return ((fields - zeros[:, None, :]) * scales[:, None, :]).reshape(-1, words.shape[1])


class Product(torch.autograd.Function):
    """x W with the gradient at x alone, as for a frozen layer."""

    @staticmethod
    def forward(ctx, x, *weight):
        ctx.weight = weight
        return x @ dequantise(*weight)

    @staticmethod
    def backward(ctx, dy):
        return dy @ dequantise(*ctx.weight).t(), None, None, None


model = [[layer(n, k) for n, k in SHAPES] for _ in range(args.layers)]
head = torch.randn(VOCAB, HIDDEN, dtype=torch.bfloat16, device=device)


def forward(x):
    for q, k, v, o, gate, up, down in model:
        x = x + Product.apply(Product.apply(x, *q) + Product.apply(x, *k) + Product.apply(x, *v), *o)
        x = x + Product.apply(Product.apply(x, *gate) * Product.apply(x, *up), *down)
        x = x * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-5).to(x.dtype)
    return x


def seconds(runs, f):
    """The median."""
    times = []
    for _ in range(runs + 2):
        torch.cuda.synchronize()
        start = time.perf_counter()
        f()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def report(name, value, unit):
    name = f"torch {torch.__version__}, dequantise and multiply, {name}"
    print(json.dumps({"part": "peers", "name": name, "value": value, "unit": unit}), flush=True)


def tokens(rows):
    return torch.randn(rows, HIDDEN, dtype=torch.bfloat16, device=device)


with torch.no_grad():
    for batch in (1, 4, 16):
        x = tokens(batch)
        rate = batch / seconds(5, lambda: forward(x) @ head.t())
        report(f"decoding, batch {batch}", round(rate, 1), "tokens/s")
    x = tokens(8 * 512)
    report("forward, 8 x 512", round(8 * 512 / seconds(3, lambda: forward(x))), "tokens/s")
x = tokens(4 * 1024).requires_grad_()


def step():
    x.grad = None
    forward(x).float().square().mean().backward()


torch.cuda.reset_peak_memory_stats()
report("training, 4 x 1024", round(4 * 1024 / seconds(3, step)), "tokens/s")
memory = torch.cuda.max_memory_allocated() / 1e9
report("training, 4 x 1024: most memory", round(memory, 2), "GB")
