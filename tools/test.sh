#!/bin/bash
# What `make test` runs once everything is installed; --fast leaves out sanitizers and fuzzers. Every
# step runs even where an earlier one failed; the end repeats each runner's closing lines, says what was
# skipped and why, and how long each step took.
set -uo pipefail
cd "$(dirname "$0")/.."
. tools/environment.sh
export PATH=$PWD/.venv/bin:$PATH
jobs=$(nproc)
fuzz_seconds=${SHMGEMM_FUZZ_SECONDS:-60}
# The only reasons to skip a test that this machine may have; any other skip is a failure.
allowed_skips='needs sst-config|needs [0-9]+ CPUs'
logs=build/test-logs
rm -rf $logs && mkdir -p $logs && touch $logs/begin
summary=() failed=0

step() { # step NAME COMMAND...
  local name=$1 begin=$SECONDS result=ok
  shift
  printf '\n==== %s\n' "$name"
  "$@" 2>&1 | tee "$logs/$name.log" || { result=FAILED failed=1; }
  summary+=("$(printf '%-16s %-7s %4d s' "$name" $result $((SECONDS - begin)))")
}

build() { # build FOLDER CMAKE-OPTION...
  local folder=build/$1
  shift
  cmake -S . -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DSHMGEMM_PYTHON=OFF \
    -DSHMGEMM_WERROR=ON "$@" >"$logs/configure.log" || { cat "$logs/configure.log"; return 1; }
  ninja -C "$folder" -j "$jobs"
}

cpp_tests() { # cpp_tests FOLDER CMAKE-OPTION...
  build "$@" -DSHMGEMM_TESTS=ON || return 1
  # ThreadSanitizer cannot lay out its shadow where addresses are randomised over too many bits.
  local fixed_layout=()
  [ "$1" = tsan ] && setarch -R true 2>/dev/null && fixed_layout=(setarch -R)
  "${fixed_layout[@]}" ctest --test-dir "build/$1" -j "$jobs" --output-on-failure --no-tests=error
}

fuzz() {
  build fuzz -DSHMGEMM_FUZZ=ON -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ || return 1
  local targets
  mapfile -t targets < <(find build/fuzz/tests -maxdepth 1 -name 'fuzz_*' -type f -executable)
  [ ${#targets[@]} -gt 0 ] || { echo "no fuzz target was built"; return 1; }
  echo "fuzzing ${#targets[@]} targets, $fuzz_seconds s each, two at a time"
  printf '%s\n' "${targets[@]}" | xargs -P 2 -n 1 tools/fuzz-one.sh $fuzz_seconds
}

skips() { # every skip with its reason; fails on one that is not allowed
  { grep -h '^SKIPPED' $logs/pytest.log 2>/dev/null
    for log in build/{dev,tsan,asan}/Testing/Temporary/LastTest.log; do
      [ $log -nt $logs/begin ] && grep -h -A 1 ': Skipped$' $log | grep -v -e ': Skipped$' -e '^--$'
    done; } >$logs/skipped
  [ -s $logs/skipped ] && { echo "skipped:"; sort -u $logs/skipped; } || echo "skipped: nothing"
  ! grep -v -E "$allowed_skips" $logs/skipped >$logs/forbidden || {
    echo "these skips are not allowed here (allowed: $allowed_skips):"
    cat $logs/forbidden
    return 1
  }
}

begin=$SECONDS
step lint tools/lint.sh
step ctest cpp_tests dev
if [ "${1:-}" != --fast ]; then
  folders='abi;region;engine;client'
  step tsan cpp_tests tsan -DSHMGEMM_SANITIZE=thread -DSHMGEMM_TEST_FOLDERS='region;engine;client'
  step asan cpp_tests asan -DSHMGEMM_SANITIZE=address,undefined "-DSHMGEMM_TEST_FOLDERS=$folders"
  step fuzz fuzz
fi
step pytest pytest -rs --durations=5

printf '\n==== summary\n'
for runner in ctest tsan asan; do
  [ -f $logs/$runner.log ] && grep -h 'tests passed' $logs/$runner.log | sed "s/^/$runner: /"
done
skips || failed=1
printf '%s\n' "${summary[@]}"
[ -f $logs/pytest.log ] && tail -n 1 $logs/pytest.log
printf 'make test: %s in %d s\n' "$([ $failed = 0 ] && echo passed || echo FAILED)" $((SECONDS - begin))
exit $failed
