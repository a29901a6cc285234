#!/usr/bin/env python3
"""Registers, memory and instructions of the CUDA kernels, as tables for docs/cuda.md.

Usage: benches/cuda/resources.py [ARCHITECTURE]...    by default sm_80 sm_89 sm_90

Compiles every file of crates/glta-kernels/kernels with nvcc (NVCC, CUDA_HOME or PATH). No GPU is
needed. Fails if a kernel spills registers. With nvdisasm on PATH, or named by NVDISASM, it also
counts the instructions per weight of the products with 4 bits and one row.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

KERNELS = Path(__file__).resolve().parents[2] / "crates/glta-kernels/kernels"
PACKED = [f"{source}{bits}" for source in ("quantized", "quantized_mma") for bits in (2, 3, 4, 8)]
FILES = ["elementwise", "attention", "attention_mma", *PACKED]

# Row of the table, and the kernels whose maximum it has.
ROWS = [
    ("product, f32 units, 4 bits, bf16, 1 row", "product4_1_bf16"),
    ("product, f32 units, all others", r"product[2348]_\d+_\w+"),
    ("dequantising", r"dequantise[2348]_\w+"),
    ("product, tensor cores, 4 bits, bf16, up to 8 rows", "product_mma4_1_bf16"),
    ("up to 16 rows", "product_mma4_2_bf16"),
    ("up to 32 rows", "product_mma4_4_bf16"),
    ("up to 64 rows", "product_mma4_8_bf16"),
    ("with the norm of up to 8 rows", "product_normed4_bf16"),
    ("maximum, all bits and types", r"product_(mma|normed)[2348]\w+"),
    ("decoding", r"attention_decode_\w+"),
    ("attention on the tensor cores", r"attention_mma(64|128)_\w+"),
    ("its derivative: queries", r"attention_mma_queries(64|128)_\w+"),
    ("its derivative: keys", r"attention_mma_keys(64|128)_\w+"),
    ("attention and its derivative on the f32 units", r"attention(_queries|_keys)?(64|128)_\w+"),
    ("maximum of all other kernels", None),
]
# Weights of a lane in a turn of the main loop.
LOOPS = {"product4_1_bf16": 128, "product_mma4_1_bf16": 128, "product_mma4_8_bf16": 64}


def tool(name, variable):
    if variable in os.environ:
        return os.environ[variable]
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if home and (Path(home) / "bin" / name).exists():
        return str(Path(home) / "bin" / name)
    return shutil.which(name)


def compiled(nvcc, name, architecture, folder):
    """Path of the compiled file, and (registers, spilled bytes) of each kernel."""
    source = name.rstrip("2348")
    cubin = Path(folder) / f"{name}-{architecture}.cubin"
    command = [nvcc, "-cubin", "-O3", "-std=c++17", "-arch", architecture, "-Xptxas", "-v"]
    if source != name:
        command.append(f"-DONLY_BITS={name[len(source):]}")
    command += ["-o", str(cubin), f"{source}.cu"]
    log = subprocess.run(command, cwd=KERNELS, capture_output=True, text=True, check=False)
    if log.returncode != 0:
        sys.exit(log.stderr)
    kernels = {}
    for part in log.stderr.split("Compiling entry function '")[1:]:
        spilled = sum(map(int, re.findall(r"(\d+) bytes spill", part)))
        kernels[part.split("'")[0]] = (int(re.search(r"Used (\d+) registers", part)[1]), spilled)
    return cubin, kernels


def instructions(nvdisasm, cubin, kernel):
    """Instructions of a kernel, and the positions of its labels."""
    text = subprocess.run([nvdisasm, "-c", str(cubin)], capture_output=True, text=True, check=True)
    code, labels, inside = [], {}, False
    for line in text.stdout.splitlines():
        if section := re.match(r"\s*\.section\s+\.text\.(\S+?),", line):
            inside = section[1] == kernel
        elif inside and (label := re.match(r"\s*(\.L_x_\d+):", line)):
            labels[label[1]] = len(code)
        elif inside and (one := re.match(r"\s*/\*[0-9a-f]+\*/\s+(.*?)\s*;", line)):
            code.append(one[1])
    return code, labels


def per_weight(code, labels, weights):
    """Instructions per weight of the longest loop: all, and those of a turn with one new group."""
    loops = []
    for at, one in enumerate(code):
        target = re.search(r"BRA.*`\((\.L_x_\d+)\)", one)
        if target and labels.get(target[1], at) < at:
            loops.append((at + 1 - labels[target[1]], labels[target[1]], at))
    size, start, end = max(loops)
    # Code that reads the scales of a group converts zero points, and is skipped within a group.
    regions = []
    for at in range(start, end):
        target = re.search(r"^@!?P\d+ BRA.*`\((\.L_x_\d+)\)", code[at])
        after = labels.get(target[1], 0) if target else 0
        if at < after <= end and any("I2F" in one for one in code[at + 1 : after]):
            regions.append((at + 1, after))
    def holds(outer, other):
        return outer[0] <= other[0] and other[1] <= outer[1] and outer != other
    inner = [r for r in regions if not any(holds(r, other) for other in regions)]
    groups = [after - at for at, after in inner]
    skipped = sum(groups) - max(groups, default=0)
    return size / weights, (size - skipped) / weights, len(groups)


def main():
    architectures = sys.argv[1:] or ["sm_80", "sm_89", "sm_90"]
    nvcc, nvdisasm = tool("nvcc", "NVCC"), tool("nvdisasm", "NVDISASM")
    if nvcc is None:
        sys.exit("nvcc is missing: set NVCC, CUDA_HOME or PATH")
    columns, counts, spills = {}, {}, []
    with tempfile.TemporaryDirectory() as folder:
        for architecture in architectures:
            registers = {}
            for name in FILES:
                cubin, kernels = compiled(nvcc, name, architecture, folder)
                registers |= {kernel: used for kernel, (used, _) in kernels.items()}
                spills += [f"{k}, {architecture}: {s} bytes" for k, (_, s) in kernels.items() if s]
                for kernel, weights in LOOPS.items():
                    if nvdisasm and kernel in kernels:
                        code, labels = instructions(nvdisasm, cubin, kernel)
                        counts[kernel, architecture] = per_weight(code, labels, weights)
            columns[architecture] = registers
    print("| registers | " + " | ".join(architectures) + " |")
    print("| --- |" + " ---: |" * len(architectures))
    for label, pattern in ROWS:
        cells = []
        for architecture in architectures:
            known = [row for _, row in ROWS if row]
            chosen = [
                used
                for kernel, used in columns[architecture].items()
                if (
                    re.fullmatch(pattern, kernel)
                    if pattern
                    else not any(re.fullmatch(other, kernel) for other in known)
                )
            ]
            cells.append(str(max(chosen)))
        print(f"| {label} | " + " | ".join(cells) + " |")
    if nvdisasm is None:
        print("\nInstructions are not counted: nvdisasm is missing.")
    for (kernel, architecture), (every, executed, groups) in counts.items():
        print(f"\n{kernel}, {architecture}: {every:.2f} instructions per weight in the loop, "
              f"{executed:.2f} executed with one of {groups} new groups")
    if spills:
        sys.exit("spilled registers:\n" + "\n".join(spills))
    print(f"\nNo spills in {sum(map(len, columns.values()))} kernels.")


if __name__ == "__main__":
    main()
