#!/usr/bin/env bash
# The demo: a real model is cut in three. Four authors, each alone in a folder with the installed SDK, write a plugin,
# train an expert on text that nobody else sees, and publish both. The experts meet when they are composed; they are
# measured beside one adapter of the same size trained on everything; a fifth joins, one leaves.
#
#   host/demo.sh          SmolLM2-135M and five kinds of text; about half an hour on 2 cores
#   host/demo.sh --smoke  the same road on a tiny random model, in a few minutes; proves the road, not the gains
#
# Everything lies in .demo/ (.demo-smoke/). A stopped demo goes on where it was; delete the folder to begin afresh.
# TENON_BUILD names another build folder than .build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

smoke=""
case "${1:-}" in
  "") ;;
  --smoke) smoke=1 ;;
  *) echo "usage: host/demo.sh [--smoke]" >&2; exit 2 ;;
esac

bash host/setup.sh
root="$PWD"
deps="${TENON_DEPS:-$root/.deps}"
demo="$root/.demo${smoke:+-smoke}"
corpora="$deps/corpora"
export TENON_HOME="$demo/home"
mkdir -p "$demo"

step() { printf '\n== %s\n' "$*" >&2; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }
# once NAME COMMAND...: runs the command unless it has succeeded before.
once() {
  local stamp="$demo/done-$1"; shift
  [[ -f "$stamp" ]] && return
  "$@"
  touch "$stamp"
}
# refused STATUS COMMAND...: shows the command and its refusal; anything else than this exit status ends the demo.
refused() {
  local need="$1" status=0; shift
  printf '$ %s\n' "$*" >&2
  "$@" || status=$?
  [[ "$status" == "$need" ]] || fail "this ended with status $status, need $need"
}

if [[ -n "$smoke" ]]; then
  model=toy steps=6 pass=12 blocks=3 tokens=16
  short=(--set data.sequence_length=64 --set data.held_out_blocks=8 --set general.blocks=8 --set evaluate_blocks=4)
  evaluation=(--sequence-length 64 --blocks "$blocks" --random-rows 1 --no-removals)
  make_model() { tenon model new toy --cut 2:4 --calibration "$corpora/calibration/json" "$corpora/calibration/prose"; }
else
  model=smollm2 steps=96 pass=96 blocks=16 tokens=48
  short=(--set data.held_out_blocks=16 --set evaluate_blocks=16)
  evaluation=(--blocks "$blocks" --random-rows 1 --compute bf16 --check)
  make_model() {
    tenon model import "$deps/models/SmolLM2-135M-Instruct.Q4_1.gguf" --name smollm2 --cut 10:20 \
      --calibration "$corpora/calibration"
  }
fi

step "Build Tenon and install it, SDK and all"
build="${TENON_BUILD:-.build}"
cmake -S . -B "$build" -G Ninja -DTENON_TORCH_ROOT="$deps/torch" >"$demo/build.log"
ninja -C "$build" tenon plugins/all || exit 1
cmake --install "$build" --prefix "$demo/prefix" >"$demo/install.log"
export PATH="$demo/prefix/bin:$PATH"

step "Cut the model: trunk, middle, head"
once model make_model

# plugin NAME LIKE: written in this folder and built against the installed SDK alone.
plugin() {
  rm -rf plugin
  tenon plugin new "$1" plugin --like "$2"
  cmake -S plugin -B plugin/build -G Ninja -DCMAKE_PREFIX_PATH="$demo/prefix" -DTENON_TORCH_ROOT="$deps/torch" >plugin.log
  ninja -C plugin/build >>plugin.log || { tail -n 40 plugin.log >&2; exit 1; }
  tenon publish plugin/build/*.so
}

gradient=()
# 1.6 times faster, to the same loss; without these instructions no faster than float32, and less exact.
if grep -qw avx512_bf16 /proc/cpuinfo; then gradient=(--set train.dtype=bfloat16); fi

# author NAME VENDOR LIKE CORPUS SETTINGS...: one author's whole day, in a folder and processes of its own.
author() (
  local name="$1" vendor="$2" like="$3" corpus="$4"; shift 4
  mkdir -p "$demo/$name" && cd "$demo/$name"
  once "plugin-$name" plugin "$vendor.$like" "tenon.$like"
  once "train-$name" tenon expert train "$name" --model "$model" --arch "$vendor.$like" --data "$corpora/$corpus" \
    "${short[@]}" "$@"
  once "publish-$name" tenon publish "$name"
)

# rival NAME ARCHITECTURE SETTINGS...: one expert trained on all four kinds of text, as long as the four together.
rival() (
  local name="$1" arch="$2"; shift 2
  mkdir -p "$demo/rivals" && cd "$demo/rivals"
  once "train-$name" tenon expert train "$name" --model "$model" --arch "$arch" --data "$corpora"/{setmm,services,python,french} \
    "${short[@]}" "${gradient[@]}" --set evaluate_blocks=4 --set "train.steps=$((steps * 9 / 2))" "$@"
  once "publish-$name" tenon publish "$name"
)

bytes_of() { stat -c %s "$demo/$1/$1/weights.safetensors"; }

step "Four authors, four architectures"
author mathematics euclid convolution setmm "${gradient[@]}" --set "train.steps=$steps"
author services cloudy recurrent services "${gradient[@]}" --set "train.steps=$steps"
author library guido low_rank python --set rank=16 "${gradient[@]}" --set "train.steps=$((steps * 3 / 2))"
author french plume mlp french "${gradient[@]}" --set "train.steps=$steps"

step "Their rivals: one adapter with the bytes of all four, and one recurrent expert, each trained on everything"
all=$(($(bytes_of mathematics) + $(bytes_of services) + $(bytes_of library) + $(bytes_of french)))
rival one-adapter tenon.low_rank --set "rank=$((16 * all / $(bytes_of library)))"
rival one-for-all tenon.recurrent

step "Compose"
experts=(mathematics services library french)
tenon compose bot --model "$model" "${experts[@]}" --top-k 2

step "Evaluate on held-out text"
data=(--data "general=$corpora/general:general") runs=()
for name in "${experts[@]}"; do
  data+=(--data "$name=held-out:$demo/$name/$name:$name") runs+=("$demo/$name/$name")
done
tenon eval bot "${data[@]}" "${evaluation[@]}" --versus one-adapter=one-adapter --versus one-for-all=one-for-all \
  --report "$demo/report.html" --runs "${runs[@]}"

step "Generate"
tenon run bot '${ syl.1 $e |- ( ph -> ps ) $. syl.2 $e |- ( ps -> ch ) $. syl $p |- ( ph -> ch ) $=' --max-tokens "$tokens" --explain
tenon run bot '{"version":"2.0","metadata":{"apiVersion":"2014-11-13","endpointPrefix":' --max-tokens "$tokens" --explain

step "A fifth joins: a memory, learnt in one pass without gradient steps"
blobs() { (cd "$TENON_HOME/registry/blobs" && sha256sum ./*); }
tenon show bot
blobs >"$demo/blobs"
author characters mnemosyne memory characters --set "pass.blocks=$pass"
tenon add bot characters
tenon eval bot --data "general=$corpora/general:general" \
  --data "characters=held-out:$demo/characters/characters:characters" "${evaluation[@]}" --no-removals

step "One leaves"
tenon remove bot french
(cd "$TENON_HOME/registry/blobs" && sha256sum --check --quiet "$demo/blobs") || fail "somebody's bytes changed"
echo "of $(wc -l <"$demo/blobs") files in the registry before, none has changed"

step "What does not fit is refused, with the reason"
once other-model tenon model new other --cut 1:3 --calibration "$corpora/calibration/json" "$corpora/calibration/prose"
refused 4 tenon compose misfit --model other mathematics
head -c 20000 "$demo"/mathematics/plugin/build/*.so >"$demo/damaged.so"
refused 5 tenon plugin check "$demo/damaged.so"

step "The report: $demo/report.html"
