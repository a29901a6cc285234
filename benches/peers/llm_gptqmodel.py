"""GPTQModel's CPU kernels on a GPTQ checkpoint: a 512-token prompt and decoding, tokens per second.

    pip install torch transformers gptqmodel==7.7.0
    GPTQMODEL_CPU_WORKERS=2 python benches/peers/llm_gptqmodel.py CHECKPOINT --threads 2
"""

import argparse
import time

import torch
from gptqmodel import BACKEND, GPTQModel

parser = argparse.ArgumentParser()
parser.add_argument("checkpoint")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--runs", type=int, default=3)
args = parser.parse_args()
torch.set_num_threads(args.threads)
prompt = torch.arange(3, 515)[None]

for name, backend in (("chosen by itself", BACKEND.AUTO), ("dequantise and multiply", BACKEND.TORCH)):
    model = GPTQModel.load(args.checkpoint, device="cpu", backend=backend).model
    kernels = sorted({type(m).__name__ for m in model.modules() if type(m).__name__.endswith("Linear")} - {"Linear"})
    with torch.no_grad():
        times = []
        for _ in range(args.runs + 1):
            start = time.perf_counter()
            model.model(prompt)
            times.append(time.perf_counter() - start)
        out = model(prompt[:, :16], use_cache=True)
        start = time.perf_counter()
        for i in range(24):
            out = model(torch.tensor([[i + 3]]), past_key_values=out.past_key_values, use_cache=True)
        decoding = 24 / (time.perf_counter() - start)
    print(f"{name} ({', '.join(kernels)}, {model.dtype}): prefill 512: {512 / min(times[1:]):.0f} tok/s, decode: {decoding:.1f} tok/s")
