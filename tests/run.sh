#!/usr/bin/env bash
# Sets up, builds and runs every test: the ordinary build in .build, in .build-asan whatever parses bytes, under the
# address and undefined-behaviour sanitizers, and in .build-tsan kernels under that of threads. The last line is "N
# passed, M failed".
#
# usage: tests/run.sh [--full] [--match REGEX]
#   --full         adds clang-tidy
#   --match REGEX  runs only the tests (by their CMake names) that match
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
full=
arguments=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    --full) full=1 ;;
    --match) arguments+=(--match "${2:?--match needs a pattern}") && shift ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2 && exit 2 ;;
  esac
  shift
done
exec </dev/null

export CCACHE_MAXSIZE="${CCACHE_MAXSIZE:-10G}" # one precompiled LibTorch header is most of a gigabyte
export CMAKE_COLOR_DIAGNOSTICS=OFF

say() { printf '%s\n' "== $*" >&2; }
failed_early() {
  say "$1 failed"
  echo "0 passed, 1 failed"
  exit 1
}

# build FOLDER CMAKE_ARGUMENT...: configures once, builds what changed.
build() {
  local folder="$1"
  shift
  cmake -S . -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo \
    -DTENON_TORCH_ROOT="${TENON_DEPS:-$root/.deps}/torch" "$@" >"$folder.log" 2>&1 || { cat "$folder.log" >&2 && return 1; }
  # A quiet build: errors and the count of steps are enough.
  NINJA_STATUS="[$folder %f/%t] " cmake --build "$folder" --parallel "$(nproc)" >&2
}

say "set-up"
bash host/setup.sh --tests || failed_early "set-up"
say "building what parses bytes, under the sanitizers"
mkdir -p .build .build-asan .build-tsan
build .build-asan -DTENON_SANITIZE=bytes -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-Og -g1" || failed_early "the sanitizer build"
say "building kernels under the sanitizer of threads"
build .build-tsan -DTENON_SANITIZE=threads -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O1 -g1" || failed_early "the threads' build"
say "building"
build .build || failed_early "the build"

if [[ -n "$full" ]]; then
  say "clang-tidy"
  bash tests/tidy.sh .build-asan || failed_early "clang-tidy"
fi

say "testing"
exec python3 tests/count.py "${arguments[@]}" .build-asan .build-tsan .build
