#!/usr/bin/env python3
"""Runs the tests of CMake build folders one by one and counts test cases over all of them.

usage: count.py [--match REGEX] BUILD_DIR...

A Catch2 program counts by its test cases, anything else as one. The output of what passes is kept in
BUILD_DIR/test-logs; of what fails it is shown. The last line is "N passed, M failed"; exits 1 on any failure. Before it
stand the tiers of processors whose kernels were tested, and why others were not.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def known_tests(build):
    listing = json.loads(subprocess.check_output(["ctest", "--show-only=json-v1"], cwd=build))
    return [(test["name"], {one["name"]: one["value"] for one in test.get("properties", [])}, test.get("command"))
            for test in listing["tests"]]


def run(command, properties, build, timeout_s):
    """Returns (exit status, output). 124 means that it ran too long."""
    environment = dict(os.environ)
    environment.update(environment_of(properties))
    try:
        done = subprocess.run(command, cwd=properties.get("WORKING_DIRECTORY", build), env=environment, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              errors="replace", timeout=properties.get("TIMEOUT", timeout_s))
        return done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        text = late.stdout or b""
        return 124, (text.decode(errors="replace") if isinstance(text, bytes) else text) + "\nran too long\n"
    except OSError as error:
        return 126, f"{error}\n"


def count_cases(status, output):
    """(passed, failed) as Catch2 tells it at its end; one case for other programs."""
    passed = failed = 0
    every = re.findall(r"^All tests passed \([\d,]+ assertions? in (\d+) test cases?\)", output, re.MULTILINE)
    some = re.findall(r"^test cases: *(\d+)(?: *\| *(\d+) passed)?(?: *\| *(\d+) failed)?", output, re.MULTILINE)
    if every:
        passed = int(every[-1])
    elif some:
        passed, failed = int(some[-1][1] or 0), int(some[-1][2] or 0)
    elif status == 0 and "No tests ran" not in output:
        passed = 1
    # A crash after the count, or before it, is a failure too; so is a program without tests.
    if (status != 0 and failed == 0) or passed + failed == 0:
        failed += 1
    return passed, failed


def environment_of(properties):
    return dict(entry.split("=", 1) for entry in properties.get("ENVIRONMENT", []))


def skipped(status, properties):
    """Whether the test said that it cannot run here."""
    return "SKIP_RETURN_CODE" in properties and status == int(properties["SKIP_RETURN_CODE"])


def told_of_tiers(ran, missing):
    """ran: the environment of every test that ran; missing: what the others said."""
    tiers = list(dict.fromkeys(one["TENON_TIER"] for one in ran if "TENON_TIER" in one))
    return ([f"tiers tested: {', '.join(tiers)}"] if tiers else []) + list(dict.fromkeys(missing))


def self_test():
    cases = [((0, "All tests passed (7 assertions in 3 test cases)\n"), (3, 0)),
             ((0, "All tests passed (1 assertion in 1 test case)\n"), (1, 0)),
             ((2, "test cases:  5 |  3 passed | 2 failed\nassertions: 9 | 7 passed | 2 failed\n"), (3, 2)),
             ((1, "test cases: 1 | 1 failed\n"), (0, 1)), ((0, "No tests ran\n"), (0, 1)), ((0, "fine\n"), (1, 0)),
             ((139, ""), (0, 1)), ((134, "All tests passed (7 assertions in 3 test cases)\n"), (3, 1)), ((124, ""), (0, 1))]
    wrong = [(given, count_cases(*given), right) for given, right in cases if count_cases(*given) != right]
    for given, found, right in wrong:
        print(f"count: {given} gives {found}, need {right}")
    told = told_of_tiers([{}, {"TENON_TIER": "avx2"}, {"A": "b", "TENON_TIER": "avx2"}], ["not run here: avx512"] * 2)
    if told != ["tiers tested: avx2", "not run here: avx512"] or told_of_tiers([{}], []):
        wrong.append(told), print(f"count: tiers are told as {told}")
    if not skipped(77, {"SKIP_RETURN_CODE": 77}) or skipped(0, {"SKIP_RETURN_CODE": 77}) or skipped(77, {}):
        wrong.append("skipped"), print("count: what is skipped is not what a test says it is")
    return not wrong


def run_all(arguments):
    passed = failed = 0
    ran, missing = [], []
    for build in map(Path, arguments.builds):
        logs = build / "test-logs"
        logs.mkdir(exist_ok=True)
        for name, properties, command in known_tests(build):
            if arguments.match and not re.search(arguments.match, name):
                continue
            start = time.monotonic()
            status, output = run(command, properties, build, 900) if command else (
                127, "not built\n")
            # As ctest judges it: by what it prints, where the test says so; a build that must fail, for the right reason.
            if patterns := properties.get("PASS_REGULAR_EXPRESSION"):
                status = 0 if any(re.search(pattern, output) for pattern in patterns) else status or 1
            (logs / f"{name}.log").write_text(output)
            if skipped(status, properties):
                missing.append(output.strip())
                print(f"skipped {build.name}/{name}: {missing[-1]}", flush=True)
                continue
            ran.append(environment_of(properties))
            good, bad = count_cases(status, output)
            passed, failed = passed + good, failed + bad
            print(f"{'ok' if bad == 0 else 'FAILED':7}{build.name}/{name}: {good} passed, {bad} failed, "
                  f"{time.monotonic() - start:.1f} s", flush=True)
            if bad:
                print(output[-20000:], f"exit status {status}", sep="\n", flush=True)
    for line in told_of_tiers(ran, missing):
        print(line, flush=True)
    return passed, failed


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--match")
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("builds", nargs="*")
    arguments = parser.parse_args()
    if arguments.self_test:
        sys.exit(0 if self_test() else 1)
    # Scratch folders of killed tests go with this one.
    with tempfile.TemporaryDirectory(prefix="tenon-run-") as scratch:
        os.chmod(scratch, 0o755)  # some tests drop their privileges and must still get to their own folders
        os.environ["TMPDIR"] = scratch
        passed, failed = run_all(arguments)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or passed == 0 else 0)


if __name__ == "__main__":
    main()
