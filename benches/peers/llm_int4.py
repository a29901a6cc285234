"""Products of few rows with 4-bit weights by other kernels, on the shapes of a layer of
LLaMA-2-7B: PyTorch's `aten::_weight_int4pack_mm`, and Marlin where MARLIN_LIBRARY names a
library that `benches/cuda/run.sh` compiled. Prints lines of JSON: bytes of the packed
weights, scales, inputs and outputs a second, beside a copy, as `benches/cuda/kernels.rs`.

    pip install torch
    python benches/peers/llm_int4.py
"""

import ctypes
import json
import os
import statistics

import torch

HIDDEN, INNER, GROUP = 4096, 11008, 128
# Outputs and inputs of a layer's fused projections.
SHAPES = {
    "q k v": (3 * HIDDEN, HIDDEN),
    "o": (HIDDEN, HIDDEN),
    "gate up": (2 * INNER, HIDDEN),
    "down": (HIDDEN, INNER),
}
ROWS = (1, 2, 4, 8, 16, 32, 64)
# Weights that take turns, so that none is in a cache.
COPIES = 8
device = "cuda"
busy = torch.randn(4096, 4096, dtype=torch.bfloat16, device=device)


def seconds(products):
    """Median of the products, queued behind others that keep the GPU busy."""
    times = []
    for run in range(5):
        torch.cuda.synchronize()
        for _ in range(50):
            busy @ busy
        events = [torch.cuda.Event(enable_timing=True) for _ in range(len(products) + 1)]
        events[0].record()
        for product, event in zip(products, events[1:]):
            product()
            event.record()
        torch.cuda.synchronize()
        if run > 0:
            times += [a.elapsed_time(b) / 1e3 for a, b in zip(events, events[1:])]
    return statistics.median(times)


def copy_bandwidth():
    x = torch.zeros(1 << 28, device=device)
    y = torch.empty_like(x)
    return 2 * 4 * x.numel() / seconds([lambda: y.copy_(x)] * 5)


def report(name, size, time):
    rate = size / time / 1e9
    print(
        json.dumps(
            {
                "part": "peers",
                "name": name,
                "value": round(rate, 1),
                "unit": "GB/s",
                "limit": round(bandwidth / 1e9, 1),
                "fraction": round(rate * 1e9 / bandwidth, 3),
                "microseconds": round(time * 1e6, 2),
            }
        ),
        flush=True,
    )


def size(n, k, rows, bytes_of_group):
    """Bytes of words, groups, inputs and outputs."""
    return n * k // 2 + bytes_of_group * n * k // GROUP + 2 * rows * (n + k)


def torch_weight(n, k):
    """As the operator wants it, and in full."""
    fields = torch.randint(0, 16, (n, k), device=device, dtype=torch.uint8)
    packed = torch._convert_weight_to_int4pack(fields[:, ::2] << 4 | fields[:, 1::2], 8)
    scales = torch.rand(k // GROUP, n, device=device) * 0.02 + 0.01
    zeros = torch.zeros_like(scales)
    groups = torch.stack((scales, zeros), dim=-1).to(torch.bfloat16)
    full = (fields.float() - 8) * groups[:, :, 0].float().t().repeat_interleave(GROUP, dim=1)
    return packed, groups, full


def torch_products(name, n, k):
    weights = [torch_weight(n, k)[:2] for _ in range(COPIES - 1)]
    packed, groups, full = torch_weight(n, k)
    weights.append((packed, groups))
    for rows in ROWS:
        x = torch.randn(rows, k, device=device, dtype=torch.bfloat16)
        multiply = torch.ops.aten._weight_int4pack_mm
        expected = x.float() @ full.t()
        off = (multiply(x, packed, GROUP, groups).float() - expected).norm() / expected.norm()
        assert off < 1e-2, f"{name}, {rows} rows: off by {off}"
        products = [lambda w=w: multiply(x, w[0], GROUP, w[1]) for w in weights]
        title = f"torch {torch.__version__} _weight_int4pack_mm, {rows} rows, {name}"
        report(title, size(n, k, rows, 4), seconds(products))


def marlin_products(library, name, n, k):
    """Times only: weights are random words, whatever their order stands for."""
    words = [
        torch.randint(-(2**31), 2**31 - 1, (k // 16, 2 * n), device=device, dtype=torch.int32)
        for _ in range(COPIES)
    ]
    scales = torch.full((k // GROUP, n), 0.01, device=device, dtype=torch.float16)
    workspace = torch.zeros(n // 128 * 16, device=device, dtype=torch.int32)
    for rows in ROWS:
        x = torch.randn(rows, k, device=device, dtype=torch.float16)
        y = torch.empty(rows, n, device=device, dtype=torch.float16)

        def multiply(w):
            pointers = [ctypes.c_void_p(t.data_ptr()) for t in (x, w, y, scales)]
            stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
            space = ctypes.c_void_p(workspace.data_ptr())
            status = library.marlin(*pointers, rows, n, k, space, GROUP, stream)
            assert status == 0, f"Marlin refuses {rows} x {n} x {k}: {status}"

        multiply(words[0])
        torch.cuda.synchronize()
        assert torch.isfinite(y).all(), "Marlin's results are not finite"
        time = seconds([lambda w=w: multiply(w) for w in words])
        report(f"Marlin, {rows} rows, {name}", size(n, k, rows, 2), time)


bandwidth = copy_bandwidth()
for shape, (outputs, inputs) in SHAPES.items():
    torch_products(shape, outputs, inputs)
path = os.environ.get("MARLIN_LIBRARY", "")
if os.path.exists(path):
    marlin = ctypes.CDLL(path)
    for shape, (outputs, inputs) in SHAPES.items():
        marlin_products(marlin, shape, outputs, inputs)
else:
    skipped = {"part": "peers", "name": "Marlin: no library", "value": None, "unit": "skipped"}
    print(json.dumps(skipped))
