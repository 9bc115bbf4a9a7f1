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
if len(blocks) != 3 or "host/demo.sh" not in blocks[0] or "tests/run.sh" not in blocks[0] or "export" not in blocks[1]:
    sys.exit("readme: found other code blocks than the two commands, where things are, and the first expert")

shutil.rmtree(os.path.join(root, ".demo-smoke"), ignore_errors=True)
run("the demo, smoke", ["bash", os.path.join(root, "host/demo.sh"), "--smoke"])

where = f"cd '{root}'\n{blocks[1]}".replace("$PWD/.demo/", "$PWD/.demo-smoke/").replace("$PWD/.deps/", f"{deps}/")
with tempfile.TemporaryDirectory(prefix="tenon-readme-") as scratch:
    def run_here(title, lines):
        # In a home of its own: the demo's model has another name in its smoke form.
        run(title, ["bash", "-euo", "pipefail", "-c", f"{where}export TENON_HOME='{scratch}/home'\ncd '{scratch}'\n{lines}"])

    shutil.copytree(os.path.join(deps, "corpora/services"), os.path.join(scratch, "docs"))
    calibration = " ".join(os.path.join(deps, "corpora/calibration", kind) for kind in ("json", "prose"))
    run_here("a tiny model under the name that the README uses",
             f"tenon model new smollm2 --width 32 --cut 2:4 --calibration {calibration}")
    # A short training stands for a long one: same command, the length from the plan's own field.
    run_here("the first expert", blocks[2].replace("--data docs/", "--data docs/ --set train.steps=20"))
    run_here("what is in the registry afterwards",
             "listed=$(tenon list); for name in smollm2 acme.notes notes; do grep -w \"$name\" <<<\"$listed\"; done")
print("readme: what it shows works")
