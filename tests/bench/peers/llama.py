"""llama.cpp's side: one process that keeps a GGUF warm and answers every line of JSON with a line. See compare.py.

  llama.py GGUF THREADS CONTEXT [quantise TYPE TARGET]
"""
import ctypes
import json
import sys
import time
from pathlib import Path

import llama_cpp as L

TYPES = {"q4_0": (2, 2), "q8_0": (7, 8), "bf16": (32, 30)}  # llama_ftype, and ggml_type of the embedding


def quantise(source, kind, target):
    """The embedding is the unembedding too: Q8_0 beside 4 bits, as in the file that is shipped."""
    parameters = L.llama_model_quantize_default_params()
    parameters.ftype, embedding = TYPES[kind]
    parameters.token_embedding_type = parameters.output_tensor_type = 8 if kind == "q4_0" else embedding
    parameters.allow_requantize = True
    parameters.nthread = 1
    if L.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(parameters)):
        sys.exit(f"llama.cpp cannot make {target}")


class Model:
    def __init__(self, path, threads, context):
        L.llama_backend_init()
        self.quiet = L.llama_log_callback(lambda *_: None)  # kept: C holds a pointer to it
        L.llama_log_set(self.quiet, None)
        self.private = anonymous()
        parameters = L.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self.model = L.llama_model_load_from_file(path.encode(), parameters)
        if not self.model:
            sys.exit(f"llama.cpp cannot read {path}")
        options = L.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = context, 2048, 512
        options.n_threads = options.n_threads_batch = threads
        self.context = L.llama_init_from_model(self.model, options)
        self.memory = L.llama_get_memory(self.context)
        self.vocab = L.llama_vocab_n_tokens(L.llama_model_get_vocab(self.model))
        self.held = []  # what the sequence holds
        self.threads, self.size, self.file = threads, context, Path(path).name

    def decode(self, ids):
        for first in range(0, len(ids), 2048):
            part = ids[first:first + 2048]
            tokens = (L.llama_token * len(part))(*part)  # named: the batch only points to it
            if L.llama_decode(self.context, L.llama_batch_get_one(tokens, len(part))):
                sys.exit("llama_decode failed")

    def hold(self, ids):
        """The sequence holds exactly these, without logits that anybody wants."""
        if self.held[:len(ids)] == ids:
            L.llama_memory_seq_rm(self.memory, -1, len(ids), -1)
        else:
            L.llama_memory_clear(self.memory, True)
            self.decode(ids)
        self.held = list(ids)

    def prompt(self, job):
        L.llama_memory_clear(self.memory, True)
        self.held = []
        start = time.perf_counter()
        self.decode(job["ids"])
        logits = L.llama_get_logits_ith(self.context, -1)
        seconds = time.perf_counter() - start
        self.held = list(job["ids"])
        answer = {"seconds": seconds}
        if job.get("logits"):
            answer["logits"] = logits[:self.vocab]
        return answer

    def steps(self, job):
        self.hold(job["context"])
        start = time.perf_counter()
        for token in job["next"]:
            self.decode([token])
            L.llama_get_logits_ith(self.context, -1)
        seconds = time.perf_counter() - start
        self.held += job["next"]
        return {"seconds": seconds}

    def tokens(self, job):
        words = job["text"].encode()
        ids = (L.llama_token * len(words))()
        count = L.llama_tokenize(L.llama_model_get_vocab(self.model), words, len(words), ids, len(ids), False, False)
        return {"ids": list(ids[:count])}

    def about(self, job):
        return {"name": "llama.cpp", "version": f"llama-cpp-python {L.__version__}", "threads": self.threads,
                "flags": f"{self.file}, {L.llama_print_system_info().decode().strip()}", "context": self.size,
                "private_before": self.private}


def anonymous():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("RssAnon:"))


def main():
    if sys.argv[4:5] == ["quantise"]:
        return quantise(sys.argv[1], sys.argv[5], sys.argv[6])
    model = Model(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps(getattr(model, job["do"])(job)), flush=True)


main()
