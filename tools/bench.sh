#!/bin/bash
# The C++ microbenchmarks, then the CLI's benches, then the pytest-benchmark suites.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PWD/.venv/bin:$PATH

echo "== building the C++ microbenchmarks"
cmake -S . -B build/bench -G Ninja -DSHMGEMM_BENCH=ON -DSHMGEMM_PYTHON=OFF >build/bench-configure.log ||
  { cat build/bench-configure.log; exit 1; }
ninja -C build/bench --quiet shmgemm-microbench
build/bench/bench/shmgemm-microbench
for what in latency gemm staging async model timing; do
  echo "== shmgemm bench $what"
  shmgemm bench $what
done
pytest bench --benchmark-only
