#!/usr/bin/env bash
# Tests and speed of the CUDA build, on a machine with a GPU.
#
#   benches/cuda/run.sh build [DIR]  builds into DIR (default target/cuda-bench):
#                                    tests, the benchmark, this script; needs a CUDA
#                                    toolkit, no GPU (docs/cuda.md). LIBRARIES=1 adds
#                                    the toolkit's libraries, 1 GB.
#   DIR/run.sh run                   on the GPU's machine: runs them, and PyTorch
#                                    beside them where there is one
#   benches/cuda/run.sh              both, on one machine
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

build() {
  cd "$here/../.."
  local to=${1:-target/cuda-bench}
  rm -rf "$to"
  mkdir -p "$to/tests"
  built() { # arguments of cargo; prints the programs that it built
    cargo "$@" --release --features cuda --message-format=json-render-diagnostics |
      python3 -c 'import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable"):
        print(message["executable"])'
  }
  built test -p glta-llm -p glta-gllm --test devices --no-run | while read -r program; do
    cp "$program" "$to/tests/"
  done
  cp "$(built build -p glta-llm --example cuda_speed)" "$to/speed"
  cp benches/cuda/run.sh benches/peers/llm_torch_dequantise.py "$to/"
  if [ -n "${LIBRARIES:-}" ]; then
    mkdir "$to/lib"
    for name in cublas cublasLt curand cudart; do
      cp -L "${CUDA_HOME:?names the toolkit}"/lib/lib$name.so.* "$to/lib/"
    done
  fi
  echo "built: $to"
}

run() {
  cd "$1"
  local torch
  # PyTorch brings the libraries that the programs need.
  torch=$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))' 2>/dev/null || true)
  export LD_LIBRARY_PATH=$PWD/lib:$torch/nvidia/cu13/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
  for program in tests/*; do
    "$program" --nocapture --test-threads=1
  done
  if command -v compute-sanitizer >/dev/null; then
    for program in tests/*; do
      compute-sanitizer --error-exitcode 1 "$program" --test-threads=1
    done
  else
    echo "skipped: compute-sanitizer is not installed"
  fi
  echo "tests passed"
  ./speed
  if python3 -c 'import torch' 2>/dev/null; then
    python3 llm_torch_dequantise.py
  else
    echo "skipped: PyTorch is not installed"
  fi
}

case ${1:-both} in
  build) build "${2:-}" ;;
  run) run "$here" ;;
  both)
    build ""
    run "$here/../../target/cuda-bench"
    ;;
  *)
    sed -n '2,/^set/p' "$0" | sed '$d'
    exit 2
    ;;
esac
