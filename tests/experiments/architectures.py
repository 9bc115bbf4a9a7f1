#!/usr/bin/env python3
"""Every architecture that comes with Tenon, trained on the same text for the same steps: what each gains alone.

usage: architectures.py TENON MODEL CORPUS [--steps 96] [--only NAME ...] [--out FOLDER]

TENON is the program; TENON_HOME must hold MODEL (tenon model import). Experts that stand on the base or share its
weights, and experts that replace it, stand in two tables: the first begin as the base, the second from nothing. Each
training is one process and lies in FOLDER; those that are finished there are not repeated. Prints Markdown.
"""
import argparse
import json
import subprocess
import sys
from pathlib import Path

NARROW = ["blocks=2", "width=256", "heads=4", "kv_heads=4", "head_dim=64", "ffn_width=768"]  # between stitches
ON_BASE = {
    "tenon.low_rank": ["rank=16"],
    "tenon.transformer_on_base": NARROW,
    "tenon.imported_on_base": [],
    "tenon.mlp": [],
    "tenon.mixture": [],
    "tenon.convolution": [],
    "tenon.recurrent": [],
    "tenon.recurrent, LSTM": ["cell=lstm"],
    "tenon.state_space": [],
    "tenon.memory": [],
}
REPLACING = {
    "tenon.transformer": NARROW,
    "tenon.imported": [],
    "tenon.mlp_middle": [],
    "tenon.mixture_middle": [],
    "tenon.convolution_middle": [],
    "tenon.recurrent_middle": [],
    "tenon.state_space_middle": [],
}
HELD_OUT = 30  # blocks
LAYERS = "14:16"  # of the model itself, for imported ones: two blocks stand for ten


def train(arguments, label, settings):
    """Trains in a folder of its own, unless that was done; returns what `tenon expert train --json` said."""
    architecture = label.split(",")[0]
    name = label.replace("tenon.", "").replace(", ", "-").replace("_", "-").lower()
    result = arguments.out / f"{name}.json"
    if not result.exists():
        command = [arguments.tenon, "expert", "train", name, "--model", arguments.model, "--arch", architecture,
                   "--data", arguments.corpus, "--json", "--set", f"data.held_out_blocks={HELD_OUT}",
                   "--set", f"evaluate_blocks={HELD_OUT}"]
        if architecture == "tenon.memory":
            settings = [*settings, f"pass.blocks={arguments.steps}"]
        else:
            settings = [*settings, f"train.steps={arguments.steps}", "train.dtype=bfloat16"]
        if "imported" in architecture:
            settings = [*settings, f"from.model={arguments.model}", f"from.layers={LAYERS}"]
        for setting in settings:
            command += ["--set", setting]
        print("+", " ".join(command), file=sys.stderr)
        done = subprocess.run(command, cwd=arguments.out, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"architectures: {label} failed with status {done.returncode}")
        result.write_text(done.stdout)
    return json.loads(result.read_text()), (arguments.out / name / "weights.safetensors").stat().st_size


def table(arguments, title, experts):
    print(f"\n{title}\n\n| architecture | perplexity | change, 95% interval | bytes | seconds |\n| --- | --- | --- | --- | --- |")
    for label, settings in experts.items():
        if arguments.only and label.split(",")[0] not in arguments.only:
            continue
        result, size = train(arguments, label, settings)
        evidence = result["evidence"]
        low, high = evidence["lower_than_base"]["alone"]["interval95"]
        print(f"| `{label.split(',')[0]}`{label.partition(',')[2]} "
              f"| {evidence['perplexity']['base']:.2f} -> {evidence['perplexity']['alone']:.2f} "
              f"| {-evidence['lower_than_base']['alone']['percent']:+.1f}% [{-high:+.1f}, {-low:+.1f}] "
              f"| {size / 1e6:.1f} MB | {result['seconds']:.0f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tenon", type=lambda text: str(Path(text).resolve()))
    parser.add_argument("model")
    parser.add_argument("corpus", type=lambda text: str(Path(text).resolve()))
    parser.add_argument("--steps", type=int, default=96, help="of one sequence of 256 tokens each")
    parser.add_argument("--only", nargs="*", help="these architectures")
    parser.add_argument("--out", type=lambda text: Path(text).resolve(), default=Path("architectures").resolve())
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    table(arguments, "On the base, or sharing its weights", ON_BASE)
    table(arguments, "Replacing the base", REPLACING)


if __name__ == "__main__":
    main()
