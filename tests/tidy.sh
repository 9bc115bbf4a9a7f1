#!/usr/bin/env bash
# clang-tidy over what builds without LibTorch (its headers cost half a minute a file).
# usage: tidy.sh BUILD_DIR, a configured build with compile_commands.json
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if ! command -v clang-tidy >/dev/null; then
  echo "tidy: clang-tidy is not installed; run: sudo apt-get install clang-tidy" >&2
  exit 1
fi
python3 - "$1/compile_commands.json" <<'PYTHON' | xargs -r -0 -n 1 -P "$(nproc)" clang-tidy --quiet --extra-arg=-Wno-unknown-warning-option -p "$1"
import json, os, sys
files = sorted({os.path.relpath(entry["file"]) for entry in json.load(open(sys.argv[1]))})
ours = ("host/", "registry/", "kernels/", "sdk/", "plugins/")  # tests and what the build wrote are left out
print(*(file for file in files if file.startswith(ours)), sep="\0", end="")
PYTHON
