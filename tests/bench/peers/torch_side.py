"""transformers' side: as llama.py, in float32 or bfloat16. Loads the GGUF, dequantised.

  torch_side.py GGUF DTYPE THREADS
"""
import json
import sys
import time
import warnings
from pathlib import Path

import torch
import transformers

path, dtype, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
torch.set_num_threads(threads)
transformers.logging.set_verbosity_error()
warnings.filterwarnings("ignore", category=FutureWarning)
model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name,
                                                          dtype=getattr(torch, dtype)).eval()


def prompt(job):
    ids = torch.tensor([job["ids"]])
    start = time.perf_counter()
    out = model(ids, use_cache=True, logits_to_keep=1)
    answer = {"seconds": time.perf_counter() - start}
    if job.get("logits"):
        answer["logits"] = out.logits[0, -1].float().tolist()
    return answer


def steps(job):
    kept = model(torch.tensor([job["context"]]), use_cache=True, logits_to_keep=1).past_key_values
    start = time.perf_counter()
    for token in job["next"]:
        kept = model(torch.tensor([[token]]), past_key_values=kept, use_cache=True).past_key_values
    return {"seconds": time.perf_counter() - start}


def about(job):
    return {"name": "transformers", "version": f"transformers {transformers.__version__}, torch {torch.__version__}",
            "threads": torch.get_num_threads(), "flags": f"{dtype}, attention {model.config._attn_implementation}"}


with torch.inference_mode():
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps({"prompt": prompt, "steps": steps, "about": about}[asked["do"]](asked)), flush=True)
