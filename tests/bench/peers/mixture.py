#!/usr/bin/env python3
"""One mixture layer (C=1024, F=2816, E=32, top-2, uniform random choices, bf16) by Tenon's operator and by ggml's
mul_mat_id, as llama.cpp runs a mixture: gate, up, silu, down, strengths, sum. Pairs, each between two probes of the
machine, in turn first, each after one that does not count; medians. Rows go in and come out in float32 on both sides.

  tests/bench/peers/mixture.py [--rows 1,8,64,512] [--pairs 7] [--threads 2] [--build DIR]

Installs llama.cpp on its first run (.deps/peers), whose ggml this is. Needs 2.5 GB. Never a test.
"""
import argparse
import ctypes
import json
import math
import os
import random
import statistics
import struct
import subprocess
import sys
import time
from pathlib import Path

import environment
from side import pair, tell, up_to_date

WIDTH, INNER, EXPERTS, EACH = 1024, 2816, 32, 2
F32, I32, BF16 = 0, 26, 30  # ggml_type
WEIGHT_BITS = 0x3c3c  # of every weight, in bfloat16: 0.0115
MOST_STREAMED = 64  # rows up to which bandwidth is the limit, not the peak


class InitParams(ctypes.Structure):
    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


class Ggml:
    """ggml's functions, by name: pointers in and out."""

    def __init__(self):
        folder = next((environment.FOLDER / "venv" / "lib").glob("python3*/site-packages")) / "llama_cpp" / "lib"
        self.base, self.cpu, _, llama = (ctypes.CDLL(str(folder / f"lib{name}.so"), mode=ctypes.RTLD_GLOBAL)
                                         for name in ("ggml-base", "ggml-cpu", "ggml", "llama"))
        llama.llama_print_system_info.restype = ctypes.c_char_p
        self.flags = llama.llama_print_system_info().decode().strip()
        self.base.ggml_init.argtypes = [InitParams]

    def __getattr__(self, name):
        function = getattr(self.base, "ggml_" + name)
        function.restype = ctypes.c_void_p
        return lambda *words: function(*(ctypes.c_void_p(w) if isinstance(w, int) and w > 1 << 20 else
                                         ctypes.c_int64(w) if isinstance(w, int) else w for w in words))


class Layer:
    """Weights once; a graph for every number of rows."""

    def __init__(self, threads):
        self.ggml, self.threads = Ggml(), threads
        self.weights = self.context(EXPERTS * 3 * WIDTH * INNER * 2 + (1 << 20))
        self.gate, self.up = (self.filled(WIDTH, INNER) for _ in range(2))
        self.down = self.filled(INNER, WIDTH)

    def context(self, size):
        return self.ggml.init(InitParams(size, None, False))

    def filled(self, inputs, outputs):
        tensor = self.ggml.new_tensor_3d(self.weights, BF16, inputs, outputs, EXPERTS)
        ctypes.memset(self.ggml.get_data(tensor), WEIGHT_BITS & 0xff, EXPERTS * inputs * outputs * 2)
        return tensor

    def prepare(self, rows):
        g = self.ggml
        context = self.context((64 << 20) + rows * EACH * (3 * INNER + 4 * WIDTH) * 4 * 2)
        x = g.new_tensor_3d(context, F32, WIDTH, 1, rows)
        ids = g.new_tensor_2d(context, I32, EACH, rows)
        strengths = g.new_tensor_3d(context, F32, 1, EACH, rows)
        for tensor, value, count in ((x, 0.1, WIDTH * rows), (strengths, 1 / EACH, EACH * rows)):
            at = (ctypes.c_float * count).from_address(g.get_data(tensor))
            at[:] = [value] * count
        inner = g.mul(context, g.silu(context, g.mul_mat_id(context, self.gate, x, ids)),
                      g.mul_mat_id(context, self.up, x, ids))
        each = g.mul(context, g.mul_mat_id(context, self.down, inner, ids), strengths)
        row, stride = WIDTH * 4, EACH * WIDTH * 4
        parts = [g.view_2d(context, each, WIDTH, rows, stride, i * row) for i in range(EACH)]
        y = g.add(context, *parts)
        graph = g.new_graph(context)
        g.build_forward_expand(graph, y)
        return context, graph, (ctypes.c_int32 * (EACH * rows)).from_address(g.get_data(ids)), y

    def run(self, prepared):
        """Seconds, after a run that only wakes the threads: asleep they take longer to begin than one row does."""
        return [self.once(prepared) for _ in range(2)][-1]

    def once(self, prepared):
        context, graph, ids, _ = prepared
        ids[:] = [e for _ in range(len(ids) // EACH) for e in random.sample(range(EXPERTS), EACH)]
        begin = time.perf_counter()
        self.ggml.cpu.ggml_graph_compute_with_ctx(ctypes.c_void_p(context), ctypes.c_void_p(graph), self.threads)
        return time.perf_counter() - begin

    def check(self, prepared):
        """All weights and inputs are alike, so one number is known."""
        weight = struct.unpack("<f", struct.pack("<I", WEIGHT_BITS << 16))[0]
        gate = WIDTH * weight * 0.1
        want = INNER * weight * gate / (1 + math.exp(-gate)) * gate
        got = ctypes.c_float.from_address(self.ggml.get_data(prepared[3])).value
        if abs(got - want) > 0.02 * abs(want):
            sys.exit(f"ggml's layer gives {got}, this file's arithmetic {want}")


def least_seconds(rows, experts, machine):
    """What the machine allows a layer that reads so many experts."""
    if rows <= MOST_STREAMED:
        return experts * 3 * WIDTH * INNER * 2 / (1e9 * machine["read"])
    return 6 * WIDTH * INNER * EACH * rows / (1e9 * machine["peak"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1,8,64,512")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--build", type=Path, default=environment.ROOT / ".build")
    options = parser.parse_args()
    up_to_date(options.build, "tenon_mixture_bench")
    environment.make(False)
    layer = Layer(options.threads)
    ours = subprocess.Popen([options.build / "tests" / "tenon_mixture_bench", "serve"], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True, env=dict(os.environ, TENON_THREADS=str(options.threads)))

    def tenon(word):
        ours.stdin.write(f"{word}\n")
        ours.stdin.flush()
        return json.loads(ours.stdout.readline())

    tell([tenon("about"), {"name": "ggml", "version": environment.LLAMA, "threads": options.threads,
                           "flags": layer.ggml.flags}], options.pairs)
    print("| rows | tenon ms | ggml ms | ratio (lowest to highest) | reached |\n| --- | --- | --- | --- | --- |")
    for rows in map(int, options.rows.split(",")):
        prepared = layer.prepare(rows)
        layer.run(prepared), layer.check(prepared), tenon(rows)
        pairs = [pair(number, lambda: tenon("probe"), lambda: tenon(rows), lambda: layer.run(prepared))
                 for number in range(options.pairs)]
        ratios = [theirs / mine["seconds"] for mine, theirs, _ in pairs]
        reached = statistics.median(least_seconds(rows, mine["experts"], machine) / mine["seconds"] for mine, _, machine in pairs)
        ours_ms, theirs_ms = (1e3 * statistics.median(values) for values in zip(*((mine["seconds"], other) for mine, other, _ in pairs)))
        print(f"| {rows} | {ours_ms:.3f} | {theirs_ms:.3f} | {statistics.median(ratios):.2f} "
              f"({min(ratios):.2f} to {max(ratios):.2f}) | {reached:.2f} of the {'bandwidth' if rows <= MOST_STREAMED else 'peak'} |", flush=True)
        layer.ggml.free(prepared[0])
    ours.stdin.close()
    ours.wait()


if __name__ == "__main__":
    main()
