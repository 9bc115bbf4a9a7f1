#!/bin/sh
# The author's day: an installed prefix, an empty folder, `tenon plugin new`, a build against the prefix alone, a check, and
# then the user's: publish, train, compose, run.
#   run.sh BUILD_DIR TORCH_ROOT SCRATCH
# Nothing of the source tree is named after the install, and the project is built outside of it.
set -eu
build=$1 torch=$2 scratch=$3
prefix=$scratch/prefix
say() { printf '== %s\n' "$*"; }
fail() { printf 'failed: %s\n' "$*" >&2; exit 1; }

rm -rf "$scratch" && mkdir -p "$scratch"
export TENON_HOME="$scratch/home"

say "install"
cmake --install "$build" --prefix "$prefix" > "$scratch/install.log"
for file in include/tenon/plugin.h include/tenon/native.hpp lib/cmake/Tenon/TenonConfig.cmake bin/tenon \
  lib/tenon/plugins/tenon_transformer.so lib/tenon/plugins/tenon_low_rank.so; do
  [ -e "$prefix/$file" ] || fail "the prefix has no $file"
done
tenon=$prefix/bin/tenon
"$tenon" --version

say "shipped plugins pass the check where they were installed"
for plugin in "$prefix"/lib/tenon/plugins/*.so; do
  "$tenon" plugin check "$plugin" > /dev/null || fail "$plugin"
done

say "a new project"
cd "$scratch"
"$tenon" plugin new acme.memory project
if "$tenon" plugin new acme.memory project 2> again.log; then fail "a second project overwrote the first"; fi
grep -q 'need a folder that is empty' again.log || fail "the refusal says: $(cat again.log)"
if grep -rn '@[A-Z]*@' project; then fail "a placeholder was left"; fi

say "another LibTorch is refused by name"
mkdir -p other/include/torch/headeronly other/lib && : > other/lib/libtorch_cpu.so
printf '#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 10\n#define TORCH_VERSION_PATCH 0\n' \
  > other/include/torch/headeronly/version.h
if cmake -S project -B refused -DCMAKE_PREFIX_PATH="$prefix" -DTENON_TORCH_ROOT="$scratch/other" > refused.log 2>&1; then
  fail "LibTorch 2.10.0 was accepted"
fi
grep -q 'found LibTorch 2.10.0' refused.log && grep -q '2\.11\.0' refused.log || fail "the refusal says: $(cat refused.log)"

say "configure and build against the prefix alone"
cmake -S project -B build -DCMAKE_PREFIX_PATH="$prefix" -DTENON_TORCH_ROOT="$torch" > configure.log 2>&1 ||
  { cat configure.log; fail "configure"; }
cmake --build build > build.log 2>&1 || { tail -50 build.log; fail "build"; }

say "check"
"$tenon" plugin check build/acme_memory.so
"$tenon" plugin check build/acme_memory.so --json > check.json
grep -q '"ok": *true' check.json || fail "$(cat check.json)"
strip -s -o stripped.so build/acme_memory.so
"$tenon" plugin check stripped.so > /dev/null || fail "the facts do not survive strip"

say "a damaged library is refused"
head -c 2000 build/acme_memory.so > cut.so
status=0
"$tenon" plugin check cut.so > /dev/null 2> cut.log || status=$?
[ "$status" = 5 ] || fail "a cut library ends with status $status, need 5"
grep -q 'TN-P5 elf' cut.log || fail "the refusal says: $(cat cut.log)"
say "publish, train, compose, run"
texts=/usr/share/common-licenses # on every Debian; what it says matters little here
mkdir -p general/prose general/code text
cp "$texts/GPL-3" general/prose/ && cp project/CMakeLists.txt project/*.cpp "$prefix"/include/tenon/*.hpp general/code/
cp "$texts/LGPL-2.1" text/
quiet() { "$tenon" --quiet "$@" > last.log 2>&1 || { status=$?; cat last.log; fail "tenon $* ended with status $status"; }; }
quiet publish build/acme_memory.so
quiet model new toy --width 32 --layers 3 --cut 1:2 --calibration general
quiet expert train memory --model toy --arch acme.memory --data text --set inner_width=16 --set train.steps=12 \
  --set data.sequence_length=64 --set general.blocks=16 --set data.max_tokens=6000
quiet publish memory
quiet compose bot --model toy memory
quiet run bot "The licence" --max-tokens 8
"$tenon" show bot | grep -q 'acme.memory' || fail "the composition does not name the plugin"

say "one flipped byte in the published library is found before anything is opened"
cp -r home damaged && rm -rf damaged/store
digest=$(sha256sum build/acme_memory.so | cut -d' ' -f1)
blob=damaged/registry/blobs/sha256-$digest
[ -f "$blob" ] || fail "the registry has no blob of the library's digest"
chmod u+w "$blob" && printf 'x' | dd of="$blob" bs=1 seek=5000 conv=notrunc status=none
status=0
TENON_HOME="$scratch/damaged" "$tenon" --quiet run bot "The licence" --max-tokens 1 > /dev/null 2> flipped.log || status=$?
[ "$status" = 5 ] || fail "a flipped byte ends with status $status, need 5: $(cat flipped.log)"

say "ok"
