"""Runs what README.md shows: the demo in its smoke form, then the lines of "Your first expert" on a tiny model.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
deps = os.environ.get("TENON_DEPS", os.path.join(root, ".deps"))


def run(title, command, **more):
    print("==", title, flush=True)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, **more)
    if done.returncode != 0:
        sys.exit(f"readme: {title} failed with status {done.returncode}")


readme = open(os.path.join(root, "README.md"), encoding="utf-8").read()
blocks = re.findall(r"```sh\n(.*?)```", readme, re.S)
if len(blocks) != 2 or "host/demo.sh" not in blocks[0] or "tests/run.sh" not in blocks[0]:
    sys.exit("readme: found other code blocks than the two commands and the first expert")

shutil.rmtree(os.path.join(root, ".demo-smoke"), ignore_errors=True)
run("the demo, smoke", ["bash", os.path.join(root, "host/demo.sh"), "--smoke"])

prefix = os.path.join(root, ".demo-smoke/prefix")
with tempfile.TemporaryDirectory(prefix="tenon-readme-") as scratch:
    environment = dict(os.environ, TENON_HOME=os.path.join(scratch, "home"), PREFIX=prefix,
                       TORCH=os.path.join(deps, "torch"), PATH=f"{prefix}/bin:{os.environ['PATH']}")
    shutil.copytree(os.path.join(deps, "corpora/services"), os.path.join(scratch, "docs"))
    run("a tiny model under the name that the README uses",
        ["tenon", "model", "new", "smollm2", "--width", "32", "--cut", "2:4",
         "--calibration", os.path.join(deps, "corpora/calibration/json"), os.path.join(deps, "corpora/calibration/prose")],
        env=environment, cwd=scratch)
    # A short training stands for a long one: same command, the length from the plan's own field.
    lines = blocks[1].replace("--data docs/", "--data docs/ --set train.steps=20")
    run("the first expert", ["bash", "-euo", "pipefail", "-c", lines], env=environment, cwd=scratch)
    listed = subprocess.run(["tenon", "list"], env=environment, capture_output=True, text=True, check=True).stdout
    for name in ("smollm2", "acme.notes", "notes"):
        if name not in listed:
            sys.exit(f"readme: {name} is not in the registry afterwards")
print("readme: what it shows works")
