#!/usr/bin/env python3
"""What Tenon holds in memory after a text of 2,048 tokens, beside llama.cpp on the same file (Q4_1, as shipped), and how
soon a composition of three experts writes its first token.

  tests/bench/peers/memory.py [--file q4_1] [--starts 7] [--threads 2] [--build DIR] [--json FILE]

  private   RssAnon: keys and values, buffers, what was copied or repacked. Of llama.cpp's process, less what Python held
            before the model was opened; of Tenon's, everything
  weights   resident pages of mapped weight files
  resident  everything, libraries too
  start     from the start of `tenon run` to the first byte of its answer; weights packed before, file cache warm
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import compare
import environment
from side import Side, tell, up_to_date

TOKENS = 2048
EXPERTS = ["tenon.low_rank", "tenon.recurrent", "tenon.convolution"]
BARS = {"memory": 1.15, "start": 0.6}


def resident(pid):
    """Bytes: private, of mapped weights, all."""
    weights, mapped = 0, ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if "-" in line.split()[0] and not line.split()[0].endswith(":"):
            mapped = line.split()[-1]
        elif line.startswith("Rss:") and mapped.endswith((".gguf", ".safetensors")):
            weights += int(line.split()[1]) * 1024
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    size = lambda key: int(status[key].split()[0]) * 1024
    return {"private": size("RssAnon"), "weights": weights, "resident": size("VmRSS")}


def after_reading(side, ids):
    side.ask(do="steps", context=ids[:TOKENS - 1], next=ids[TOKENS - 1:TOKENS])
    held = resident(side.process.pid)
    held["private"] -= side.about.get("private_before", 0)
    held["counted"] = held["private"] + held["weights"]
    return held


def three_experts(build, model, form):
    """A composition of three hardly trained experts: their sizes and architectures are those of real ones."""
    tenon = [build / "bin" / "tenon", "--home", compare.HOME, "-q"]
    quick = [word for setting in ("train.steps=2", "data.sequence_length=64", "data.held_out_blocks=4", "general.blocks=4",
                                  "evaluate_blocks=2") for word in ("--set", setting)]
    for number, architecture in enumerate(EXPERTS):
        plugin = build / "lib" / "tenon" / "plugins" / (architecture.replace(".", "_") + ".so")
        if subprocess.run([*tenon, "show", architecture], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
            subprocess.run([*tenon, "publish", plugin], check=True, stdout=subprocess.DEVNULL)
        name, folder = f"start-{number}", environment.FOLDER / f"start-{number}"
        if subprocess.run([*tenon, "show", name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
            continue
        shutil.rmtree(folder, ignore_errors=True)  # of another build's plugin
        subprocess.run([*tenon, "expert", "train", name, "--model", model, "--arch", architecture, "--out", folder, "--data",
                        environment.FOLDER / "calibration" / "kind0", *quick], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([*tenon, "publish", folder], check=True, stdout=subprocess.DEVNULL)
    names = [f"start-{number}" for number in range(len(EXPERTS))]
    subprocess.run([*tenon, "compose", "start", "--model", model, *names, "--compute", form], check=True,
                   stdout=subprocess.DEVNULL)
    subprocess.run([*tenon, "model", "pack", model, "--format", form, "--experts", *names], check=True,
                   stdout=subprocess.DEVNULL)
    return [*tenon, "run", "start", "Once upon a time", "--max-tokens", "8"]


def start_seconds(command, threads):
    variables = dict(os.environ, TENON_THREADS=str(threads), OMP_NUM_THREADS=str(threads))
    begin = time.perf_counter()
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, env=variables)
    process.stdout.read(1)
    seconds = time.perf_counter() - begin
    process.stdout.read()
    if process.wait():
        sys.exit(f"tenon run ended with status {process.returncode}")
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", default="q4_1")
    parser.add_argument("--starts", type=int, default=7)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--build", type=Path, default=compare.ROOT / ".build")
    parser.add_argument("--json", help="also write the figures here")
    options = parser.parse_args()
    up_to_date(options.build, "tenon", "tenon_inference_bench")
    python = environment.make(False)
    path = compare.gguf_of(options.file, python)
    model, form = compare.imported(options.file, path, options.build)

    llama = Side(python, compare.HERE / "llama.py", path, options.threads, TOKENS + 32, threads=options.threads)
    ids = llama.ask(do="tokens", text=compare.text())["ids"]
    tenon = Side(options.build / "tests" / "tenon_inference_bench", compare.HOME, model, form, threads=options.threads)
    held = {"tenon": after_reading(tenon, ids), "llama.cpp": after_reading(llama, ids)}
    ratio = held["tenon"]["counted"] / held["llama.cpp"]["counted"]
    for side in (tenon, llama):
        side.close()
    tell([tenon.about, llama.about])
    print(f"after {TOKENS} tokens of {options.file}\n")
    print("| | private MB | weights MB | together | resident MB |\n| --- | --- | --- | --- | --- |")
    for name, sizes in held.items():
        print(f"| {name} | " + " | ".join(f"{sizes[key] / 1e6:.1f}" for key in ("private", "weights", "counted", "resident")) + " |")
    print(f"\ntogether {ratio:.2f}x (asked for: at most {BARS['memory']}x)")

    command = three_experts(options.build, model, form)
    start_seconds(command, options.threads)
    starts = [start_seconds(command, options.threads) for _ in range(options.starts)]
    print(f"first token of a composition of {len(EXPERTS)} experts after {statistics.median(starts):.2f} s "
          f"({min(starts):.2f} to {max(starts):.2f}; asked for: at most {BARS['start']} s)")
    if options.json:
        Path(options.json).write_text(json.dumps({"memory": held, "ratio": ratio, "starts": starts}, indent=1) + "\n")


if __name__ == "__main__":
    main()
