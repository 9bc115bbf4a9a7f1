#!/usr/bin/env bash
# The demo: a real model is cut in three; two experts, one of them a stranger's plugin built against the installed SDK
# alone, are trained apart, published, composed, evaluated, and one is taken out again.
#
#   host/demo.sh          SmolLM2-135M, formal mathematics and service descriptions; about 16 minutes on 2 cores
#   host/demo.sh --smoke  the same road on a tiny random model, in two minutes; proves the road, not the gains
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
export TENON_HOME="$demo/home"
mkdir -p "$demo"

step() { printf '\n== %s\n' "$*" >&2; }
# once NAME COMMAND...: runs the command unless it has succeeded before.
once() {
  local stamp="$demo/done-$1"; shift
  [[ -f "$stamp" ]] && return
  "$@"
  touch "$stamp"
}

step "Build Tenon and install its SDK"
build="${TENON_BUILD:-.build}"
cmake -S . -B "$build" -G Ninja -DTENON_TORCH_ROOT="$deps/torch" >"$demo/build.log"
ninja -C "$build" tenon plugins/all || exit 1
cmake --install "$build" --prefix "$demo/prefix" >"$demo/install.log"
export PATH="$demo/prefix/bin:$PATH"

if [[ -n "$smoke" ]]; then
  model=toy; blocks=4; settings=(--set train.steps=8 --set data.held_out_blocks=8 --set data.sequence_length=64
    --set general.blocks=8 --set evaluate_blocks=4); rank=(--set rank=4); width=(--set inner_width=32)
  evaluation=(--sequence-length 64 --blocks "$blocks" --random-rows 1 --no-removals); tokens=16
  make_model() { tenon model new toy --cut 2:4 --calibration "$deps/corpora/calibration/json" "$deps/corpora/calibration/prose"; }
else
  model=smollm2; settings=(--set train.steps=160); rank=(--set rank=16); width=(--set inner_width=1536)
  evaluation=(--blocks 30 --random-rows 2 --check); tokens=64
  make_model() {
    tenon model import "$deps/models/SmolLM2-135M-Instruct.Q4_1.gguf" --name smollm2 --cut 10:20 \
      --calibration "$deps/corpora/calibration"
  }
fi

step "Cut the model: trunk, middle, head"
once model make_model

step "A stranger writes a plugin against the installed SDK, in a folder of its own"
stranger() {
  rm -rf "$demo/stranger"
  tenon plugin new acme.residual "$demo/stranger"
  cmake -S "$demo/stranger" -B "$demo/stranger/build" -G Ninja -DCMAKE_PREFIX_PATH="$demo/prefix" \
    -DTENON_TORCH_ROOT="$deps/torch" >"$demo/stranger.log"
  ninja -C "$demo/stranger/build" >>"$demo/stranger.log" || { tail -n 40 "$demo/stranger.log" >&2; exit 1; }
}
once stranger stranger
library="$(find "$demo/stranger/build" -maxdepth 1 -name '*.so')"
tenon plugin check "$library"
once publish-plugin tenon publish "$library"

step "Train two experts apart: neither knows of the other"
mkdir -p "$demo/mathematics" "$demo/services"
(cd "$demo/mathematics" && once setmm tenon expert train setmm --model "$model" --arch tenon.low_rank \
  --data "$deps/corpora/setmm" "${rank[@]}" "${settings[@]}")
(cd "$demo/services" && once services tenon expert train services --model "$model" --arch acme.residual \
  --data "$deps/corpora/services" "${width[@]}" "${settings[@]}")
once publish-setmm tenon publish "$demo/mathematics/setmm"
once publish-services tenon publish "$demo/services/services"

step "Compose"
tenon compose bot --model "$model" setmm services --top-k 2

step "Evaluate on held-out text"
tenon eval bot --data general="$deps/corpora/general:general" \
  --data setmm="held-out:$demo/mathematics/setmm:setmm" --data services="held-out:$demo/services/services:services" \
  "${evaluation[@]}"

step "Generate"
tenon run bot '${ syl.1 $e |- ( ph -> ps ) $. syl.2 $e |- ( ps -> ch ) $. syl $p |- ( ph -> ch ) $=' --max-tokens "$tokens" --explain
tenon run bot '{"version":"2.0","metadata":{"apiVersion":"2014-11-13","endpointPrefix":' --max-tokens "$tokens" --explain

step "Take one out again: nobody else's bytes change"
files() { (cd "$TENON_HOME/registry/blobs" && sha256sum ./* | sha256sum); }
before="$(files)"
tenon remove bot services
[[ "$(files)" == "$before" ]] || { echo "demo: the registry's files changed" >&2; exit 1; }
echo "registry before and after: ${before%% *}"
tenon add bot services
