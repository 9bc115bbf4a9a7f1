#!/usr/bin/env python3
"""Tenon beside llama.cpp and transformers, on the same SmolLM2 file and the same machine.

  tests/bench/peers/compare.py [--files q4_1,q8_0,bf16,q4_0] [--pairs 7] [--threads 2] [--quick] [--transformers]
                               [--works prompt:512,steps:0] [--prepare] [--build DIR] [--json FILE]

Installs the peers on its first run (.deps/peers; llama.cpp is built for this processor). q4_1 is the file as shipped;
the others are made of it by llama.cpp's own quantize. Tenon imports each, cut 10:20, and reads and writes as trunk, base
and head through its ordinary session: `--compute stored`, which is each file's own format without loss (bf16 for bf16).

Prompts of q4_1 are measured beside llama.cpp's reading of q4_0, too: another format of as many bits a weight (Q4_1 has a
minimum besides its scale), the one that llama.cpp reads fastest. That row is named so; its weights are not the same.

--prepare only installs, quantises, imports and packs. Memory, and the time to a first token: memory.py.

One pair is: a probe of the machine, one side, the other, a probe; the sides take turns at being first, both keep their
model warm, neither works while the other does. Figures are medians over the pairs; a ratio is of one pair's two sides.
`limit` is what the pair's own probes allow: bandwidth over the bytes a step must read, peaks over the operations of a
prompt's products and attention; `at most` is the ratio that Tenon would have at that limit. bfloat16 may be packed in
fewer bytes than the file holds it in; what is asked for counts the file's, and both are told. Never a test: the figures
are the machine's as much as anybody's.
"""
import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import environment
from side import Side, pair, tell, up_to_date

ROOT = environment.ROOT
HERE = Path(__file__).resolve().parent
HOME = environment.FOLDER / "home"
SHIPPED = ROOT / ".deps" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
TEXT = ROOT / ".deps" / "corpora" / "general"
STEPS, CONTEXT = 32, 4352
BF16_BYTES = 269e6  # of the file's matrices, which a step reads unless it has them in fewer
# (least ratio, least fraction of the limit) asked for; None: nothing is.
BARS = {("q4_1", "steps"): (2.3, 0.7), ("q8_0", "steps"): (1.5, 0.75), ("bf16", "steps"): (1.3, 0.85),
        ("q4_1", "prompt"): (4.0, 0.3), ("q8_0", "prompt"): (None, 0.3), ("bf16", "prompt"): (1.5, 0.55),
        ("q4_0", "prompt"): (2.0, 0.3), ("q4_1 beside q4_0", "prompt"): (2.0, None)}


def gguf_of(kind, python):
    path = SHIPPED if kind == "q4_1" else environment.FOLDER / f"SmolLM2-135M-Instruct.{kind}.gguf"
    if not path.exists():
        partial = path.with_suffix(".partial")
        subprocess.run([python, HERE / "llama.py", SHIPPED, "1", "1", "quantise", kind, partial], check=True,
                       stderr=subprocess.DEVNULL)
        partial.rename(path)
    return path


def imported(kind, path, build):
    """Tenon's package of the file. Its general text is short: only what is not measured here depends on it."""
    name = f"smollm2-{kind.replace('_', '-')}"
    calibration = environment.FOLDER / "calibration"
    for number in range(2):
        folder = calibration / f"kind{number}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "text.txt").write_text(text()[number * 20000:(number + 1) * 20000])
    tenon = [build / "bin" / "tenon", "--home", HOME, "-q"]
    if subprocess.run([*tenon, "show", name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        subprocess.run([*tenon, "model", "import", path, "--cut", "10:20", "--name", name, "--calibration", calibration],
                       check=True, stdout=subprocess.DEVNULL)
    form = "bf16" if kind == "bf16" else "stored"
    subprocess.run([*tenon, "model", "pack", name, "--format", form], check=True, stdout=subprocess.DEVNULL)
    return name, form


def text():
    files = sorted(path for path in TEXT.rglob("*") if path.is_file())
    return "\n\n".join(path.read_text("utf-8", "replace")[:8000] for path in files)


def measure(side, work, length, ids, logits=False):
    if work == "prompt":
        answer = side.ask(do="prompt", ids=ids[:length], logits=logits)
        return length / answer["seconds"], answer.get("logits")
    held = max(length, 1)  # nothing at all cannot be continued
    answer = side.ask(do="steps", context=ids[:held], next=ids[held:held + STEPS])
    return STEPS / answer["seconds"], None


def limit(tenon, work, length, machine, weights=None):
    """Tokens/s that the machine could do of this work, as Tenon's products and bytes are, or with so many of weights."""
    if work == "steps":
        read = (weights or tenon.about["step_bytes"]) + (length + STEPS / 2) * tenon.about["position_bytes"]
        return 1e9 * machine["read"] / read
    seconds = 0
    for kind, operations in tenon.about["row_operations"].items():
        operations += (length + 1) / 2 * tenon.about["position_operations"][kind]
        if operations and not machine[kind]:
            return None
        seconds += operations / (1e9 * machine[kind]) if operations else 0
    return 1 / seconds


def agreement(ours, theirs):
    """Of the two sides' logits at one position: is the likeliest token one, how far apart are they?"""
    def log_softmax(x):
        top = max(x)
        total = math.log(sum(math.exp(v - top) for v in x)) + top
        return [v - total for v in x]
    p, q = log_softmax(ours), log_softmax(theirs)
    return {"same_top": ours.index(max(ours)) == theirs.index(max(theirs)),
            "kl": sum(math.exp(a) * (a - b) for a, b in zip(p, q)),
            "largest_difference": max(abs(a - b) for a, b in zip(p, q))}


def run_pair(tenon, peer, work, length, ids, number):
    ours, theirs, machine = pair(number, lambda: tenon.ask(do="probe"),
                                 *(lambda side=side: measure(side, work, length, ids)[0] for side in (tenon, peer)))
    of_file = BF16_BYTES if tenon.about["row_operations"]["bf16"] else None
    return {"tenon": ours, "peer": theirs, "limit": limit(tenon, work, length, machine),
            "file_limit": limit(tenon, work, length, machine, of_file), "machine": machine}


def compare(kind, tenon, peer, works, ids, pairs):
    """kind: the file, or `OURS beside THEIRS`."""
    rows = []
    for work, length in works:
        ours, theirs = (measure(side, work, length, ids, logits=True)[1] for side in (tenon, peer))  # warms up, too
        runs = []
        for number in range(pairs):
            runs.append(run_pair(tenon, peer, work, length, ids, number))
            print(f"{kind} {work} {length}, pair {number + 1} of {pairs}: {runs[-1]['tenon']:.1f} and "
                  f"{runs[-1]['peer']:.1f} tokens/s", file=sys.stderr)
        ratios = [run["tenon"] / run["peer"] for run in runs]
        row = {"file": kind, "work": work, "length": length, "peer": peer.about["name"], "runs": runs,
               "tenon": statistics.median(run["tenon"] for run in runs),
               "theirs": statistics.median(run["peer"] for run in runs), "ratio": statistics.median(ratios),
               "lowest": min(ratios), "highest": max(ratios)}
        if runs[0]["limit"]:
            row["limit"] = statistics.median(run["limit"] for run in runs)
            row["reached"] = statistics.median(run["tenon"] / run["limit"] for run in runs)
            row["of_file"] = statistics.median(run["tenon"] / run["file_limit"] for run in runs)
            row["at_most"] = statistics.median(run["limit"] / run["peer"] for run in runs)
        if ours and "beside" not in kind:
            row["logits"] = agreement(ours, theirs)
        rows.append(row)
    return rows


def verdict(row):
    ratio, fraction = BARS.get((row["file"], row["work"]), (None, None))
    words = []
    if ratio:
        words.append(f"{'yes' if row['ratio'] >= ratio else 'NO'}: {ratio}x")
    if fraction and row.get("reached"):
        words.append(f"{'yes' if row['of_file'] >= fraction else 'NO'}: {fraction} of the file's limit")
    return ", ".join(words)


def table(rows):
    print("| file | work | tenon tok/s | peer | peer tok/s | ratio (lowest to highest) | at most | limit | reached | "
          "asked for | last position: same token, KL |")
    print("| --- " * 11 + "|")
    for row in rows:
        work = f"prompt of {row['length']}" if row["work"] == "prompt" else f"steps after {row['length']}"
        logits = row.get("logits")
        said = f"{'yes' if logits['same_top'] else 'NO'}, {logits['kl']:.1e}" if logits else ""
        top = f"{row['limit']:.0f}" if row.get("limit") else "not known"
        reached = f"{row['reached']:.2f}" if row.get("reached") else ""
        if reached and f"{row['of_file']:.2f}" != reached:
            reached += f" ({row['of_file']:.2f} by the file's bytes)"
        at_most = f"{row['at_most']:.2f}" if row.get("at_most") else ""
        print(f"| {row['file']} | {work} | {row['tenon']:.1f} | {row['peer']} | {row['theirs']:.1f} | {row['ratio']:.2f} "
              f"({row['lowest']:.2f} to {row['highest']:.2f}) | {at_most} | {top} | {reached} | {verdict(row)} | {said} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", default="q4_1,q8_0,bf16,q4_0")
    parser.add_argument("--works", default="prompt:512,prompt:2048,steps:0,steps:512,steps:4096")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--quick", action="store_true", help="one pair, prompts of 512, steps after 0 and 512")
    parser.add_argument("--transformers", action="store_true", help="for bf16 also transformers, in bfloat16")
    parser.add_argument("--prepare", action="store_true", help="only install, quantise, import and pack")
    parser.add_argument("--build", type=Path, default=ROOT / ".build")
    parser.add_argument("--json", help="also write every pair here")
    options = parser.parse_args()
    works = [(word.split(":")[0], int(word.split(":")[1])) for word in options.works.split(",")]
    if options.quick:
        options.pairs, works = 1, [("prompt", 512), ("steps", 0), ("steps", 512)]

    up_to_date(options.build, "tenon", "tenon_inference_bench")
    python = environment.make(options.transformers)
    rows, sides = [], []
    for kind in options.files.split(","):
        path = gguf_of(kind, python)
        name, form = imported(kind, path, options.build)
        if options.prepare:
            continue
        tenon = Side(options.build / "tests" / "tenon_inference_bench", HOME, name, form, threads=options.threads)
        peers = [Side(python, HERE / "llama.py", path, options.threads, CONTEXT, threads=options.threads)]
        ids = peers[0].ask(do="tokens", text=text())["ids"]
        if options.transformers and kind == "bf16":
            peers.append(Side(python, HERE / "torch_side.py", path, "bfloat16", options.threads, threads=options.threads))
        for peer in peers:
            rows += compare(kind, tenon, peer, works, ids, options.pairs)
        prompts = [(work, length) for work, length in works if work == "prompt"]
        if kind == "q4_1" and prompts:
            peers.append(Side(python, HERE / "llama.py", gguf_of("q4_0", python), options.threads, CONTEXT,
                              threads=options.threads))
            rows += compare("q4_1 beside q4_0", tenon, peers[-1], prompts, ids, options.pairs)
        sides += [side.about for side in [tenon, *peers]]
        for side in [tenon, *peers]:
            side.close()
    if options.prepare:
        return
    tell(sides, options.pairs)
    table(rows)
    if options.json:
        Path(options.json).write_text(json.dumps({"date": time.strftime("%Y-%m-%d"), "sides": sides, "rows": rows},
                                                 indent=1) + "\n")


if __name__ == "__main__":
    main()
