#!/usr/bin/env python3
"""Every bench that something is asked of, and then one table: of each work what is asked, and what this machine reached.

  tests/bench/all.py [--only compare,batching,...] [--out .build/bench] [--pairs 7] [--build .build]

Takes most of an hour on two cores, on which nothing else should run; host/setup.sh fetches model and texts before.
What each bench prints is kept in --out, and one whose file is there is not run again: a run that was stopped goes on, and
a new one wants a new folder. Where the time of what falls short goes, on machines that were looked at: figures.md.
"""
import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))
import compare
import environment
import memory
from side import up_to_date

HERE, DEPS = Path(__file__).resolve().parent, compare.ROOT / ".deps"
FILES = ("q4_1", "q8_0", "bf16")
PROGRAMS = ("inference", "batching", "composition", "mixture", "plugin_tax", "routing", "agreement")
BOUND_EXCEEDED = 3  # the status of a bench that holds what it found against bounds of its own, and says so
MODELS = {kind: (f"smollm2-{kind.replace('_', '-')}", "bf16" if kind == "bf16" else "stored") for kind in FILES}


class Figure(NamedTuple):
    work: str
    asked: str
    reached: str
    met: bool


def at_least(work, bar, value, of="times"):
    return Figure(work, f"at least {bar} {of}", f"{value:.3g}", round(value, 3) >= bar)


def at_most(work, bar, value, of="times"):
    return Figure(work, f"at most {bar} {of}", f"{value:.3g}", round(value, 3) <= bar)


def number(pattern, text):
    found = re.search(pattern, text, re.MULTILINE)
    if not found:
        sys.exit(f"found nothing like {pattern!r} in:\n{text}")
    return float(found[1])


def lines_of_json(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


# What each bench printed, or wrote as JSON, as figures.

def read_compare(text):
    for row in json.loads(text)["rows"]:
        work = f"{row['work']} of {row['length']} tokens, {row['file']}"
        ratio, fraction = compare.BARS.get((row["file"], row["work"]), (None, None))
        if ratio:
            yield at_least(work, ratio, row["ratio"], f"times {row['peer']}'s")
        if fraction and "of_file" in row:
            yield at_least(work, fraction, row["of_file"], "of what the machine allows")


def read_memory(text):
    result = json.loads(text)
    yield at_most("memory after a text", memory.BARS["memory"], result["ratio"], "times llama.cpp's")
    yield at_most("start to first token, three experts", memory.BARS["start"], sorted(result["starts"])[len(result["starts"]) // 2], "s")


def read_batching(kind):
    def read(text):
        yield at_least(f"eight sequences on one expert, {kind}", 4.0, number(r"^together +([\d.]+)", text), "times one's tokens/s")
        yield at_least(f"eight on experts of their own, {kind}", 0.7, number(r"reached ([\d.]+) of it", text), "of what bytes allow")
    return read


def read_composition(text):
    for row in lines_of_json(text):
        if row["work"] == "steps":
            bar = {"sticky": 1.10, "token": 1.35}[row["policy"]]
            yield at_most(f"four experts, one a position, {row['policy']}: a token", bar, row["mean_ratio"], "times the base's")
        if row["work"] == "prompt":
            yield at_most(f"the same: a prompt, {row['policy']}", 1.15, row["ratio_to_its_work"], "times its work")


def read_mixture(text):
    for rows in (1, 8, 64, 512):
        figure = lambda side, pattern: number(rf"^ *{rows} rows  {re.escape(side)} .*?([\d.]+) {pattern}", text)
        work = f"mixture layer, {rows} rows"
        yield at_most(work + ", bf16", 1.0, 1 / figure("bf16, plain", "times ours"), "of the plain one's time")
        yield at_least(work + ", bf16", 1.4, figure("bf16, LibTorch", "times ours"), "times as fast as LibTorch")
        for side in ("bf16", "int8", "int4") if rows <= 64 else ("bf16",):
            bar, of = (0.85, "bandwidth") if rows <= 64 else (0.7, "peak")
            yield at_least(f"{work}, {side}", bar, figure(side + "  ", f"of the {of}"), f"of the {of}")


def read_ggml(text):
    yield at_least("mixture layer, 512 rows, bf16", 3.0, number(r"^\| 512 \| [\d.]+ \| [\d.]+ \| ([\d.]+)", text), "times ggml")


def read_plugin_tax(text):
    for row in lines_of_json(text):
        yield at_most(f"plugin boundary, {row['architecture']} in {row['compute']}", 1.03, row["tax"])


def read_routing(text):
    for rule in ("sparsemax", "1.5-entmax"):
        yield at_most(f"{rule} of 10,000 experts", 2.5, number(rf"10000 experts, a row:.*{re.escape(rule)} [\d.]+ us \(([\d.]+)\)", text), "times top-2")


def read_training(work, bar):
    return lambda text: [at_least("a training step, " + work, bar, json.loads(text)["ratio"], "times eager PyTorch's")]


def read_agreement(text):
    for row in lines_of_json(text):
        if row["format"] == "bf16":
            yield at_least("likeliest tokens that are float32's, bf16", 0.98, row["plain"]["top_equal"], "of positions")
            yield at_most("divergence from float32, bf16", 1e-3, row["plain"]["kl"], "nats")
            yield at_most("float32's lead above which all likeliest tokens are the same, bf16", 0.1, row["plain"]["margin"], "nats")
        else:
            worse = row["same_weights"]["worse_percent"]
            yield at_most(f"perplexity above float32's on the same weights, {row['format']}", 0.5, worse, "%")


def benches(build, pairs, out):
    """name: (command, reader). JSON: where the command writes what is read, instead of printing it."""
    program, python, home = build / "tests", environment.PYTHON, compare.HOME
    peers = lambda name, *words: [python, HERE / "peers" / f"{name}.py", "--build", build, *words]
    plain = lambda bench, *words: [program / f"tenon_{bench}_bench", *words]
    q4_1, stored = MODELS["q4_1"]
    all_benches = {
        "compare": (peers("compare", "--files", ",".join(FILES), "--pairs", pairs, "--json", "JSON"), read_compare),
        "compare-transformers": (peers("compare", "--files", "bf16", "--transformers", "--works", "prompt:512,prompt:2048", "--pairs", pairs, "--json", "JSON"), read_compare),
        "memory": (peers("memory", "--json", "JSON"), read_memory),
        "composition": (plain("composition", home, q4_1, DEPS / "corpora", stored, pairs), read_composition),
        "mixture": (plain("mixture", 4 * pairs + 3), read_mixture),
        "ggml": (peers("mixture", "--pairs", pairs), read_ggml),
        "plugin-tax": (plain("plugin_tax", build / "lib" / "tenon" / "plugins"), read_plugin_tax),
        "routing": (plain("routing"), read_routing),
        "agreement": (plain("agreement", home, MODELS["bf16"][0], DEPS / "corpora" / "general", "bf16", "int8", "int4"), read_agreement),
        "agreement-q4_1": (plain("agreement", home, q4_1, DEPS / "corpora" / "general", stored), read_agreement),
    }
    for kind, (model, form) in MODELS.items():
        all_benches[f"batching-{kind}"] = (plain("batching", home, model, form, pairs), read_batching(kind))
    text = sorted((DEPS / "corpora" / "french" / "manuals").glob("*"))[:40]
    for name, bar, work, words in (("float32", 1.25, "float32", ["float32"]), ("bfloat16", 1.25, "bfloat16", ["bfloat16"]),
                                   ("bfloat16-float32", 2.0, "bfloat16 beside its float32", ["bfloat16", "--eager-dtype", "float32"])):
        command = [python, HERE / "training.py", build / "bin" / "tenon", q4_1, *text, "--expert", "transformer", "--pairs", pairs, "--json", "JSON", "--dtype", *words]
        all_benches[f"training-{name}"] = (command, read_training(work, bar))
    return {name: ([out / f"{name}.partial" if word == "JSON" else word for word in command], read)
            for name, (command, read) in all_benches.items()}


def run(name, command, out):
    """Whether it went well, now or before."""
    kept, partial, log = (out / f"{name}.{ending}" for ending in ("txt", "partial", "log"))
    if kept.exists():
        return True
    print(f"== {name}", file=sys.stderr, flush=True)
    with open(log if partial in command else partial, "w") as printed:
        status = subprocess.run([str(word) for word in command], stdout=printed,
                                env=dict(os.environ, TENON_HOME=str(compare.HOME))).returncode
    if status not in (0, BOUND_EXCEEDED):
        print(f"{name} ended with status {status}; what it printed: {printed.name}", file=sys.stderr)
        return False
    partial.rename(kept)
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="benches, by name: " + ", ".join(benches(compare.ROOT / ".build", 1, Path())))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--build", type=Path, default=compare.ROOT / ".build")
    options = parser.parse_args()
    out = options.out or options.build / "bench"
    out.mkdir(parents=True, exist_ok=True)
    chosen = benches(options.build, options.pairs, out)
    if options.only:
        chosen = {name: chosen[name] for name in options.only.split(",")}
    up_to_date(options.build, "tenon", *(f"tenon_{name}_bench" for name in PROGRAMS))
    environment.make(True)
    subprocess.run([sys.executable, HERE / "peers" / "compare.py", "--prepare", "--build", options.build], check=True)
    went_well = [name for name, (command, _) in chosen.items() if run(name, command, out)]
    print("| work | asked | reached |\n| --- | --- | --- |")
    for name in went_well:
        for figure in chosen[name][1]((out / f"{name}.txt").read_text()):
            print(f"| {figure.work} | {figure.asked} | {figure.reached if figure.met else f'**{figure.reached}**'} |")
    sys.exit(len(went_well) < len(chosen))


if __name__ == "__main__":
    main()
