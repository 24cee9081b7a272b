#!/bin/bash
# Installs the Debian packages that a build needs; with --test also those the tests need. Looks at what
# is there rather than at package names, so nothing is touched where nothing is missing.
set -euo pipefail

missing=()
need() { # need PACKAGES COMMAND...: PACKAGES are missing where COMMAND fails
  local packages=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=($packages)
}
header() { echo "#include <$1>" | g++ -E -x c++ - ; }
python_builds() {
  python3 -c 'import ensurepip, os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")'
}
clang_fuzzes() { # asks clang for the file that -fsanitize=fuzzer links
  local machine=$(uname -m)
  compgen -G "/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-$machine.a"
}

need g++ command -v g++
need nlohmann-json3-dev header nlohmann/json.hpp
need "python3 python3-dev python3-venv" python_builds
if [ "${1:-}" = --test ]; then
  need git command -v git
  need libgtest-dev header gtest/gtest.h
  need libbenchmark-dev header benchmark/benchmark.h
  need clang command -v clang++
  need libclang-rt-14-dev clang_fuzzes
  need verilator command -v verilator
  need ccache command -v ccache
  # The guest path: QEMU, and what `shmgemm guest build` compiles with.
  need qemu-system-misc command -v qemu-system-riscv64
  need gcc-riscv64-linux-gnu command -v riscv64-linux-gnu-gcc
  need g++-riscv64-linux-gnu command -v riscv64-linux-gnu-g++
  need linux-source-6.12 test -f /usr/src/linux-source-6.12.tar.xz
  need "make bc bison flex xz-utils" eval 'make -v && bc -v && bison -V && flex -V && xz -V'
  need nlohmann-json3-dev header nlohmann/json.hpp
  need dpkg-dev command -v dpkg-source
  need "meson ninja-build pkg-config" eval 'meson -v && ninja --version && pkg-config --version'
  need "libglib2.0-dev libpixman-1-dev" pkg-config glib-2.0 pixman-1
  need libfdt-dev header libfdt.h
  # The driver's checks.
  need sparse command -v sparse
fi

[ ${#missing[@]} -eq 0 ] && exit 0
if ! command -v apt-get >/dev/null; then
  echo "shmgemm: install what your system calls these Debian packages: ${missing[*]}" >&2
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "shmgemm: packages are missing; run this, then try again:" >&2
  echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}" >&2
  exit 1
fi
echo "== installing Debian packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y --no-install-recommends "${missing[@]}" | sed -n -u -E '/^(Get:|Setting up)/s/^/   /p'
