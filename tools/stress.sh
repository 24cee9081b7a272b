#!/bin/bash
# `make stress`: a million async ops from several threads, with engines killed meanwhile, under ASan and
# UBSan. The build is that of `make test`, which runs a short one of these; arguments go to the program.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/environment.sh
export PATH=$PWD/.venv/bin:$PATH
cmake -S . -B build/asan -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DSHMGEMM_PYTHON=OFF \
  -DSHMGEMM_WERROR=ON -DSHMGEMM_SANITIZE=address,undefined -DSHMGEMM_TESTS=ON \
  '-DSHMGEMM_TEST_FOLDERS=abi;region;engine;client' >/dev/null
ninja -C build/asan -j "$(nproc)" shmgemm-stress
build/asan/tests/shmgemm-stress build/asan/src/cpp/shmgemm-engine "$@"
