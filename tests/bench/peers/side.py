"""What the benches that compare share: a side that is asked line by line, and a pair of sides between two probes."""
import json
import os
import platform
import subprocess
import sys
import time


class Side:
    """A process that answers a line of JSON with a line."""

    def __init__(self, *command, threads):
        variables = dict(os.environ, TENON_THREADS=str(threads), OMP_NUM_THREADS=str(threads))
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, env=variables)
        self.about = self.ask(do="about")

    def ask(self, **job):
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.process.args[0]} ended with status {self.process.wait()}")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def up_to_date(build, *targets):
    """What is measured is built first: an old build would be measured in silence."""
    subprocess.run(["cmake", "--build", build, "--target", *targets], check=True, stdout=sys.stderr)


def alone(work):
    time.sleep(0.1)  # by then the other's threads have stopped spinning for more work, which takes bandwidth away
    return work()


def pair(number, probe, ours, theirs):
    """(ours(), theirs(), what the machine can do meanwhile): between two probes, in turn first, neither while the other
    works."""
    before = alone(probe)
    if number % 2:
        other, mine = alone(theirs), alone(ours)
    else:
        mine, other = alone(ours), alone(theirs)
    after = alone(probe)
    return mine, other, {key: (before[key] + after[key]) / 2 for key in before}


def tell(sides, pairs=None):
    """What was compared, where, and how often."""
    for about in sides:
        print(f"{about['name']}: {about['version']}; {about['threads']} threads; {about['flags']}")
    where = f"{time.strftime('%Y-%m-%d')}, {platform.processor() or platform.machine()}, {os.cpu_count()} processors"
    print(where + (f", {pairs} pairs\n" if pairs else "\n"))
