#!/bin/bash
# Style and types over tracked files. Runs every check, then fails if one did.
set -uo pipefail
cd "$(dirname "$0")/.."
export PATH=$PWD/.venv/bin:$PATH
failed=0
check() {
  echo "-- $1"
  "${@:2}" || failed=1
}

mapfile -t python < <(git ls-files '*.py' '*.pyi')
mapfile -t cpp < <(git ls-files '*.c' '*.h' '*.cpp')
check "ruff check" ruff check --quiet --force-exclude "${python[@]}"
check "ruff format" ruff format --quiet --check --force-exclude "${python[@]}"
check "mypy" mypy --no-error-summary src/python
check "clang-format" clang-format --dry-run -Werror "${cpp[@]}"
exit $failed
