#!/bin/bash
# Runs one fuzz target for some seconds: fuzz-one.sh SECONDS EXECUTABLE. Says its last line; where it
# found something, the end of its log and the input, which stays in build/fuzz-work/<name>.
set -uo pipefail
name=$(basename "$2")
folder=build/fuzz-work/$name
mkdir -p "$folder/corpus"
"$2" -max_total_time="$1" -rss_limit_mb=1024 -artifact_prefix="$folder/" "$folder/corpus" >"$folder/log" 2>&1
status=$?
echo "$name: $(tail -n 1 "$folder/log")"
[ $status -eq 0 ] || { tail -n 60 "$folder/log"; exit 1; }
