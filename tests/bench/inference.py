#!/usr/bin/env python3
"""How fast Tenon reads and writes beside transformers, both in one format, on the same SmolLM2 and the same machine.

  tests/bench/inference.py [--build DIR] [--model GGUF] [--home DIR] [--python PYTHON] [--pairs 7] [--json FILE]
                          [--compute float32] [--threads N]

A pair is one of each between two probes of the machine; they take turns at being first. Prints medians over the pairs:
  prefill      512 tokens, logits of the last position, tokens/s
  decode       64 tokens after them, tokens/s
  first token  from the start of the process to the first byte on stdout, file cache warm, seconds (Tenon alone)
  memory       RssAnon while it writes, MB (Tenon alone; keys, values and kept rows of the sequence included)
Needs the demo's home, or any that holds the model as smollm2. Without --python, a virtual environment with the
reference is made on the first run (.deps/bench, 5 GB). Never a test: the figures are the machine's as much as ours.
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))
from side import Side, pair, tell, up_to_date

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".deps" / "bench"
PACKAGES = ["torch==2.11.0", "transformers>=5,<6", "accelerate", "gguf", "safetensors"]
PREFILL, DECODE = 512, 64

REFERENCE = r"""
import json, sys, time, torch, transformers
from pathlib import Path
from transformers import AutoModelForCausalLM, AutoTokenizer
path = Path(sys.argv[1])
load = dict(gguf_file=path.name)
tokenizer = AutoTokenizer.from_pretrained(path.parent, **load)
model = AutoModelForCausalLM.from_pretrained(path.parent, **load, dtype=getattr(torch, sys.argv[2])).eval()
for line in sys.stdin:
    job = json.loads(line)
    if job.get("do") == "about":
        print(json.dumps({"name": "transformers", "version": f"transformers {transformers.__version__}, torch {torch.__version__}",
                          "threads": torch.get_num_threads(), "flags": sys.argv[2]}), flush=True)
        continue
    ids = torch.tensor([job["ids"]])
    with torch.inference_mode():
        start = time.perf_counter()
        out = model(ids, use_cache=True, logits_to_keep=1)
        read = time.perf_counter()
        for _ in range(job["decode"]):
            out = model(out.logits[:, -1].argmax(-1, keepdim=True), past_key_values=out.past_key_values, use_cache=True)
        done = time.perf_counter()
    print(json.dumps({"prefill": len(job["ids"]) / (read - start), "decode": job["decode"] / (done - read)}), flush=True)
"""


def reference_python():
    python = VENV / "bin" / "python"
    if not (VENV / "ready").exists():
        print("making the reference environment (once)", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        (VENV / "ready").touch()
    return python


def first_token(tenon, home, compute):
    """Seconds to the first byte of a new process, and the most RssAnon in MB seen while it wrote."""
    start = time.perf_counter()
    process = subprocess.Popen([tenon, "--home", home, "run", "smollm2", "Once upon a time", "--quiet", "--max-tokens",
                                str(DECODE), "--compute", compute], stdout=subprocess.PIPE)
    process.stdout.read(1)
    seconds, private = time.perf_counter() - start, 0.0
    while process.poll() is None:
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                private = max(private, int(line.split()[1]) / 1024)
        time.sleep(0.02)
    process.stdout.read()
    return seconds, private


def prompt_ids(python, model):
    """512 tokens of text, by the reference's tokenizer."""
    code = ("import json,sys\nfrom pathlib import Path\nfrom transformers import AutoTokenizer\np=Path(sys.argv[1])\n"
            "t=AutoTokenizer.from_pretrained(p.parent,gguf_file=p.name)\n"
            "print(json.dumps(t(' The river ran past the old mill and the miller counted his sacks.'*80)['input_ids']))")
    told = subprocess.run([python, "-c", code, model], stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(told)[:PREFILL]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=ROOT / ".build")
    parser.add_argument("--model", default=str(ROOT / ".deps" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"))
    parser.add_argument("--home", default=str(ROOT / ".demo" / "home"), help="where the model is, as smollm2")
    parser.add_argument("--python", help="a Python with torch, transformers, accelerate and gguf")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--compute", default="float32", choices=["float32", "bf16", "int8", "int4", "stored"],
                        help="what Tenon's products compute in; transformers in float32, else in bfloat16")
    parser.add_argument("--json", help="also write the figures here")
    options = parser.parse_args()

    up_to_date(options.build, "tenon", "tenon_inference_bench")
    python = options.python or reference_python()
    ids = prompt_ids(python, options.model)
    theirs = "float32" if options.compute == "float32" else "bfloat16"
    reference = Side(python, "-c", REFERENCE, options.model, theirs, threads=options.threads)
    tenon = Side(options.build / "tests" / "tenon_inference_bench", options.home, "smollm2", options.compute,
                 threads=options.threads)
    ours, others, reads, starts = [], [], [], []
    for number in range(options.pairs + 1):  # the first warms up
        one, other, machine = pair(number, lambda: tenon.ask(do="probe"),
                                   *(lambda side=side: side.ask(ids=ids, decode=DECODE) for side in (tenon, reference)))
        start = first_token(options.build / "bin" / "tenon", options.home, options.compute)
        if number:
            ours.append(one), others.append(other), reads.append(machine["read"]), starts.append(start)
            print(f"pair {number}: prefill {one['prefill']:.0f} and {other['prefill']:.0f} tokens/s, "
                  f"decode {one['decode']:.1f} and {other['decode']:.1f}; {machine['read']:.1f} GB/s", file=sys.stderr)

    tell([tenon.about, reference.about], options.pairs)
    print(f"the machine read {statistics.median(reads):.1f} GB/s ({min(reads):.1f} to {max(reads):.1f})")
    result = {"date": time.strftime("%Y-%m-%d"), "machine": platform.processor() or platform.machine(),
              "cores": os.cpu_count(), "sides": [tenon.about, reference.about], "pairs": options.pairs, "read": reads,
              "compute": options.compute, "transformers": theirs}
    for what in ("prefill", "decode"):
        mine, other = (statistics.median(run[what] for run in runs) for runs in (ours, others))
        ratios = [one[what] / two[what] for one, two in zip(ours, others)]
        result[what] = {"tenon": mine, "transformers": other, "ratio": statistics.median(ratios),
                        "lowest": min(ratios), "highest": max(ratios)}
        print(f"{what:8} {mine:8.1f} tokens/s, transformers {other:8.1f}: {statistics.median(ratios):.2f}x "
              f"({min(ratios):.2f} to {max(ratios):.2f})")
    result["first_token_seconds"] = statistics.median(seconds for seconds, _ in starts)
    result["rss_anon_mb"] = max(private for _, private in starts)
    print(f"first token after {result['first_token_seconds']:.2f} s; RssAnon {result['rss_anon_mb']:.0f} MB")
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
