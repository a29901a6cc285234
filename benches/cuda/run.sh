#!/usr/bin/env bash
# Tests and speed of the CUDA build, on a machine with a GPU.
#
#   benches/cuda/run.sh build [FILE]   builds an archive (default target/cuda-bench.tar.xz):
#                                      tests, benchmarks, this script; needs a CUDA toolkit,
#                                      no GPU (docs/cuda.md). It runs on GPUs of compute
#                                      capability 8.0 and above.
#   tar -xf cuda-bench.tar.xz          on the GPU's machine
#   cuda-bench/run.sh run [PART]...    tests, kernels, speed, peers, sanitize; by default all
#                                      of them. The first four take 6 minutes at most.
#   cuda-bench/run.sh run --dry-run    prints the commands, and fails where a file is missing
#   benches/cuda/run.sh                builds and runs on one machine
#
# `run` appends its results to results.jsonl in $OUT, or next to the script: one object
# per line with part, name, value, unit, limit (of the hardware) and fraction (of the limit).
# A command that fails or reaches its time limit is also a line, with its exit status as value;
# later commands still run, and `run` exits with 1. The output of the programs is in PART.log.
#
# The programs need libcuda (the driver), libcublas, libcurand and libcudart. They are found
# in PyTorch for the same CUDA version, or through LD_LIBRARY_PATH.
# MARLIN_SOURCE=FILE.cu: a copy of marlin_cuda_kernel.cu of github.com/IST-DASLab/marlin,
# which `peers` compiles with nvcc and times.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

# Seconds for each part.
declare -A limits=([tests]=90 [kernels]=75 [speed]=135 [peers]=60 [sanitize]=120)
parts=(tests kernels speed peers sanitize)
programs=(llm_devices gllm_devices cuda_kernels cuda_speed)
scripts=(llm_torch_dequantise.py llm_int4.py)
# Small enough to be run under compute-sanitizer.
sanitized=on_a_gpu::results_do_not_depend_on_the_run

build() {
  cd "$here/../.."
  local archive=${1:-target/cuda-bench.tar.xz} to crate target program
  # candle's kernels for this compute capability also run on all later ones.
  export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-80}
  if [ "$CUDA_COMPUTE_CAP" != 80 ]; then
    echo "note: built for compute capability $CUDA_COMPUTE_CAP; 80 runs on all from there on" >&2
  fi
  to=$(mktemp -d)
  # shellcheck disable=SC2064
  trap "rm -rf '$to'" EXIT
  mkdir "$to/cuda-bench"
  built() { # arguments of cargo; prints crate, target and path of the programs that it built
    cargo "$@" -p glta-llm -p glta-gllm --features glta-llm/cuda,glta-gllm/cuda --release \
      --message-format=json-render-diagnostics |
      python3 -c 'import json, os, sys
for line in sys.stdin:
    m = json.loads(line)
    if m.get("executable"):
        crate = os.path.basename(os.path.dirname(m["manifest_path"]))
        print(crate, m["target"]["name"], m["executable"])'
  }
  built test --test devices --no-run >"$to/built"
  built build --example cuda_kernels --example cuda_speed >>"$to/built"
  while read -r crate target program; do
    [ "$target" != devices ] || target=${crate#glta-}_devices
    cp "$program" "$to/cuda-bench/$target"
  done <"$to/built"
  (cd "$to/cuda-bench" && strip "${programs[@]}")
  cp benches/cuda/run.sh "${scripts[@]/#/benches/peers/}" "$to/cuda-bench/"
  if [ -n "${MARLIN_SOURCE:-}" ]; then
    cp "$MARLIN_SOURCE" "$to/cuda-bench/marlin.cu"
  fi
  # The programs share most of their code, so one window covers all of them.
  tar -C "$to" -c cuda-bench | xz -T1 --lzma2=preset=6,dict=256MiB >"$archive"
  rm -rf "$to"
  trap - EXIT
  echo "built: $archive, $(($(stat -c %s "$archive") / 1000000)) MB"
}

# Prints a line of results: part, name, value, unit, and optionally a message.
note() {
  local line message
  message=$(printf %s "${5:-}" | tr -d '"\\\000-\037' | cut -c 1-200)
  line=$(printf '{"part": "%s", "name": "%s", "value": %s, "unit": "%s"' "${@:1:4}")
  line+=${message:+", \"message\": \"$message\""}'}'
  echo "$line"
  echo "$line" >>"$results"
}

# Runs a command of a part within the remaining time of the part.
step() { # PART NAME COMMAND...
  local part=$1 name=$2 left status=0 file
  shift 2
  if [ -n "$dry" ]; then
    printf '%s:' "$part"
    printf ' %q' timeout "${limits[$part]}" "$@"
    echo
    for file; do
      if [[ $file == ./* && ! -e $file ]]; then
        echo "missing: $file"
        failed=1
      fi
    done
    return
  fi
  left=$((end - SECONDS))
  if [ "$left" -le 0 ]; then
    note "$part" "$name" null failed "not run: the part had no time left"
    failed=1
    return
  fi
  timeout -k 5 "$left" "$@" >"$scratch/output" 2>&1 || status=$?
  { printf '$'; printf ' %q' "$@"; echo; cat "$scratch/output"; } >>"$out/$part.log"
  grep '^{' "$scratch/output" | tee -a "$results" || true
  if [ "$status" = 0 ]; then
    note "$part" "$name" 0 passed
    return
  fi
  failed=1
  if [ "$status" = 124 ] || [ "$status" = 137 ]; then
    note "$part" "$name" "$status" failed "out of time"
  else
    # A Rust program prints its message on the next line.
    note "$part" "$name" "$status" failed \
      "$(grep -A 1 -m 1 'panicked at' "$scratch/output" | tail -n 1 | grep . ||
        tail -n 1 "$scratch/output")"
  fi
}

# Each test runs in its own process, so that its effects on the GPU end with it.
part_tests() {
  local program test
  for program in llm_devices gllm_devices; do
    step tests "$program: list" ./$program --list
    if [ -n "$dry" ]; then
      step tests "" ./$program --include-ignored --nocapture --exact TEST
      continue
    fi
    # `cargo test` runs the tests on the CPU.
    sed -n 's/^\(on_a_gpu::.*\): test$/\1/p' "$scratch/output" >"$scratch/tests"
    while read -r test; do
      step tests "$program, $test" ./$program --include-ignored --nocapture --exact "$test"
    done <"$scratch/tests"
  done
}

part_kernels() {
  step kernels kernels ./cuda_kernels
}

part_speed() {
  step speed speed ./cuda_speed
}

part_peers() {
  if [ -z "$dry" ] && ! python3 -c 'import torch' 2>/dev/null; then
    note peers "PyTorch is not installed" null skipped
    return
  fi
  if [ -n "$marlin" ]; then
    wait "$marlin" || true
    step peers "compiling Marlin" test -e "$out/marlin.so"
  fi
  step peers int4 env MARLIN_LIBRARY="$out/marlin.so" python3 ./llm_int4.py
  step peers dequantise python3 ./llm_torch_dequantise.py
}

part_sanitize() {
  local tool
  if [ -z "$dry" ] && ! command -v compute-sanitizer >/dev/null; then
    note sanitize "compute-sanitizer is not installed" null skipped
    return
  fi
  for tool in memcheck racecheck; do
    step sanitize "$tool, $sanitized" compute-sanitizer --tool "$tool" --error-exitcode 1 \
      ./llm_devices --include-ignored --exact "$sanitized"
  done
}

# Compiles Marlin while the tests run.
compile_marlin() {
  local source=${MARLIN_SOURCE:-}
  if [ -z "$source" ] && [ -e marlin.cu ]; then
    source=$PWD/marlin.cu
  fi
  if [ -z "$source" ]; then
    [ -n "$dry" ] || note peers "Marlin: MARLIN_SOURCE names no file" null skipped
    return
  fi
  cat >"$scratch/marlin.cu" <<END
#include "$(realpath "$source")"
extern "C" int marlin(const void *a, const void *b, void *c, void *scales, int m, int n, int k,
                      void *workspace, int group, cudaStream_t stream) {
  return marlin_cuda(a, b, c, scales, m, n, k, workspace, group, 0, stream);
}
END
  local command=(nvcc -O3 -std=c++17 -arch "${MARLIN_ARCH:-native}" --shared -Xcompiler -fPIC)
  command+=(-o "$out/marlin.so" "$scratch/marlin.cu")
  if [ -n "$dry" ]; then
    printf 'peers:'
    printf ' %q' "${command[@]}"
    echo
    return
  fi
  rm -f "$out/marlin.so"
  timeout 180 "${command[@]}" >"$out/marlin.log" 2>&1 &
  marlin=$!
}

run() {
  cd "$1"
  shift
  local part site gpu
  dry=
  failed=
  marlin=
  if [ "${1:-}" = --dry-run ]; then
    dry=1
    shift
  fi
  for part; do
    if [ -z "${limits[$part]:-}" ]; then
      echo "$part: no such part; there are ${parts[*]}" >&2
      exit 2
    fi
  done
  [ $# = 0 ] || parts=("$@")
  out=${OUT:-$PWD}
  results=$out/results.jsonl
  scratch=$(mktemp -d)
  # shellcheck disable=SC2064
  trap "rm -rf '$scratch'" EXIT
  # The driver caches compiled kernels for the next program.
  export CUDA_CACHE_PATH=$PWD/cache RUST_BACKTRACE=0
  # PyTorch contains the libraries that the programs need.
  site=$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))' 2>/dev/null || true)
  export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$site/nvidia/cu13/lib
  if [ -z "$dry" ]; then
    mkdir -p "$out"
    for part in "${parts[@]}"; do
      rm -f "$out/$part.log"
    done
    gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader \
      2>/dev/null | head -n 1 || true)
    note run "${gpu:-nvidia-smi finds no GPU}" null GPU
  fi
  case " ${parts[*]} " in
    *" peers "*) compile_marlin ;;
  esac
  for part in "${parts[@]}"; do
    end=$((SECONDS + limits[$part]))
    "part_$part"
  done
  if [ -n "$failed" ]; then
    [ -z "$dry" ] || exit 1
    echo "failed; see $results" >&2
    exit 1
  fi
}

case ${1:-both} in
  build) build "${2:-}" ;;
  run) run "$here" "${@:2}" ;;
  both)
    build ""
    tar -C "$here/../../target" -xf "$here/../../target/cuda-bench.tar.xz"
    run "$here/../../target/cuda-bench"
    ;;
  *)
    sed -n '2,/^set/p' "$0" | sed '$d'
    exit 2
    ;;
esac
