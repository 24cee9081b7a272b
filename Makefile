# Two commands matter: `make run` (a real model on the simulated device) and `make test`.
# Both do all set-up themselves, in .venv and build/, and do it once.
SOURCES := $(shell find src guest sst_gemm_element cmake bench/measure bench/goals.toml CMakeLists.txt pyproject.toml -type f -not -name '*.pyc' 2>/dev/null)

help:
	@echo "make run        set up, build, run the MiniLM sentence encoder on the simulated device"
	@echo "make test       lint, C++ tests, ThreadSanitizer, ASan+UBSan, fuzzers, pytest"
	@echo "make test-fast  the same without sanitizers and fuzzers"
	@echo "make test-kernel  the Linux driver's stress under KASAN, lockdep, kmemleak (first: builds that kernel)"
	@echo "make stress     a million async ops, engines killed meanwhile, under ASan+UBSan"
	@echo "make lint       ruff, mypy --strict, clang-format"
	@echo "make bench      C++ microbenchmarks, shmgemm bench, pytest bench/"
	@echo "make clean      remove what was built (distclean: also .venv)"

run: .venv/.shmgemm
	.venv/bin/shmgemm run minilm

test: .venv/.shmgemm .venv/.test
	tools/test.sh

test-fast: .venv/.shmgemm .venv/.test
	tools/test.sh --fast

test-kernel: .venv/.shmgemm
	.venv/bin/python tools/test_kernel.py

stress: .venv/.test
	tools/stress.sh

lint: .venv/.test
	tools/lint.sh

bench: .venv/.shmgemm .venv/.test
	tools/bench.sh

clean:
	rm -rf build out .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks .venv/.shmgemm

distclean: clean
	rm -rf .venv

.venv/.packages: tools/setup-debian.sh tools/setup-venv.sh
	tools/setup-debian.sh
	tools/setup-venv.sh packages
	@touch $@

.venv/.shmgemm: .venv/.packages $(SOURCES)
	tools/setup-venv.sh shmgemm
	@touch $@

.venv/.test: .venv/.packages pyproject.toml
	tools/setup-debian.sh --test
	tools/setup-venv.sh test
	@touch $@

.PHONY: help run test test-fast test-kernel stress lint bench clean distclean
