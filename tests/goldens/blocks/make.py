#!/usr/bin/env python3
"""Makes digests.json: what ggml's block formats mean, by gguf-py's own dequantize.

    python make.py      (needs: pip install gguf==0.19.0)

For each format, 64 blocks of the noise below, whose f16 scales are made finite, and the sha256 of their float32 values.
tests/kernels/blocks.cpp makes the same blocks.
"""
import hashlib
import json
import pathlib

import numpy
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize

BLOCKS, SEED = 64, 7
# Where a block holds its f16 numbers.
SCALES = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2],
          "Q6_K": [208]}


def noise(size, seed):
    for _ in range(size):
        seed = (seed * 6364136223846793005 + 1442695040888963407) % 2**64
        yield seed >> 56


def main():
    digests = {}
    for name, scales in SCALES.items():
        kind = Type[name]
        size = GGML_QUANT_SIZES[kind][1]
        blocks = numpy.fromiter(noise(BLOCKS * size, SEED), numpy.uint8).reshape(BLOCKS, size)
        for offset in scales:
            blocks[:, offset + 1] &= 0xBF
        values = dequantize(blocks, kind).astype("<f4")
        assert numpy.isfinite(values).all()
        digests[name] = hashlib.sha256(values.tobytes()).hexdigest()
    path = pathlib.Path(__file__).parent / "digests.json"
    path.write_text(json.dumps(digests, indent=2) + "\n")


if __name__ == "__main__":
    main()
