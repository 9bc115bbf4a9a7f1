"""How fast is a training step, beside an eager PyTorch step of the same expert, without cached outputs?

usage: training.py TENON MODEL DATA... [--expert low_rank | transformer] [--dtype float32 | bfloat16]
                   [--eager-dtype float32 | bfloat16] [--steps 10] [--rounds 3] [--threads N]
needs a Python with torch (the pinned wheel will do), a registry that holds MODEL, TENON_HOME as for tenon.

Both sides start from one checkpoint of the expert (rank-16 adapters of every product, or as many blocks as the base
has, all of their own), take the same blocks in the same order, and must have the same loss at each step (to 1e-3 in
float32, to 3e-2 where a side has bfloat16 products); they take turns, so that a busy machine slows both. PyTorch's side
is what one would write by hand: trunk, base and head as modules, autograd over expert and head, cross-entropy over all
logits, AdamW fused; in bfloat16 under autocast, the frozen matrices converted once. It runs trunk and base in each step
that needs them. Prints tokens/s of both and their ratio; on a machine that does other work too, processor seconds with
one thread (--threads 1, OMP_NUM_THREADS=1) tell more.
"""
import argparse, json, math, os, pathlib, shutil, signal, struct, subprocess, sys, tempfile, time

import torch
import torch.nn.functional as F


def read_safetensors(path):
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8:8 + size]), bytearray(data[8 + size:])
    out = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        assert entry["dtype"] == "F32", (name, entry["dtype"])
        begin, end = entry["data_offsets"]
        out[name] = torch.frombuffer(body, dtype=torch.float32, count=(end - begin) // 4, offset=begin).view(entry["shape"])
    return out


def read_tokens(path):
    data = path.read_bytes()
    assert data[:8] == b"TENONSHD", path
    count = struct.unpack_from("<Q", data, 16)[0]
    return torch.frombuffer(bytearray(data), dtype=torch.int32, count=count, offset=96).long()


class Registry:
    def __init__(self, home):
        self.root, self.cache = home / "registry", home / "cache"

    def entry(self, name):
        events = [json.loads(line) for line in (self.root / "index" / f"{name}.jsonl").read_text().splitlines()]
        digest = [event for event in events if "entry" in event][-1]["entry"]
        return json.loads(self.blob(digest).read_text())

    def blob(self, digest):
        return self.root / "blobs" / digest.replace(":", "-")

    def weights(self, entry):
        digest = next(f for f in entry["files"] if f["role"] == "weights")["digest"]
        derived = self.cache / "float32" / (digest.split(":")[1] + ".safetensors")
        return read_safetensors(derived if derived.exists() else self.blob(digest))

    def file(self, entry, path):
        return self.blob(next(f for f in entry["files"] if f["path"] == path)["digest"])


class Block:
    """A block of Llama's kind; adapters, where given, are (a, b) by product."""
    def __init__(self, weights, prefix, shape, adapters=None):
        self.w = {name[len(prefix):-len(".weight")]: t for name, t in weights.items() if name.startswith(prefix) and name.endswith(".weight")}
        self.shape, self.adapters = shape, adapters or {}

    def linear(self, name, x):
        y = F.linear(x, self.w[name])
        if name in self.adapters:
            a, b = self.adapters[name]
            y = y + self.shape["scale"] * F.linear(F.linear(x, a), b)
        return y

    def __call__(self, h, rope):
        s, (B, T, C) = self.shape, h.shape
        x = F.rms_norm(h, (C,), self.w["attention_norm"], s["norm_eps"])
        split = lambda name, n: self.linear(f"attention.{name}", x).view(B, T, n, s["head_dim"]).transpose(1, 2)
        q, k, v = rope(split("q", s["heads"])), rope(split("k", s["kv_heads"])), split("v", s["kv_heads"])
        group = s["heads"] // s["kv_heads"]
        y = F.scaled_dot_product_attention(q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1), is_causal=True)
        h = h + self.linear("attention.o", y.transpose(1, 2).reshape(B, T, -1))
        x = F.rms_norm(h, (C,), self.w["ffn_norm"], s["norm_eps"])
        return h + self.linear("ffn.down", F.silu(self.linear("ffn.gate", x)) * self.linear("ffn.up", x))


class Eager:
    """The same step, by hand."""
    def __init__(self, registry, model_name, checkpoint, plan, train_tokens, dtype):
        model = registry.entry(model_name)
        self.dtype = dtype
        frozen = lambda entry: {n: t.to(dtype) if t.dim() == 2 else t for n, t in registry.weights(entry).items()}
        manifest, ends = model["manifest"], frozen(model)
        base = frozen(registry.entry(manifest["base"]["name"]))
        self.shape = dict(manifest["config"])
        if "rank" in plan["config"]:
            self.shape["scale"] = plan["config"].get("alpha", 32.0) / plan["config"]["rank"]
        first, last = manifest["cut"]["first"], manifest["cut"]["last"]
        norm = read_safetensors(registry.file(model, "normalization.safetensors"))
        self.mean, self.deviation = norm["mean"], norm["deviation"]
        self.ends, self.plan = ends, plan
        self.train, self.general = train_tokens, read_tokens(registry.file(model, "calibration.tokens"))
        state = read_safetensors(checkpoint)
        self.parameters = {n[len("parameter/"):]: t.clone().requires_grad_() for n, t in state.items() if n.startswith("parameter/")}
        self.r, self.b = state["row/r"], state["row/b"]
        adapters = lambda i: {name: (self.parameters[f"blocks.{i}.{name}.a"], self.parameters[f"blocks.{i}.{name}.b"])
                              for name in ("attention.q", "attention.k", "attention.v", "attention.o", "ffn.gate", "ffn.up", "ffn.down")
                              if f"blocks.{i}.{name}.a" in self.parameters}
        self.trunk = [Block(ends, f"blocks.{i}.", self.shape) for i in range(first)]
        self.base = [Block(base, f"blocks.{i}.", self.shape) for i in range(last - first)]
        own = {name: tensor for name, tensor in self.parameters.items() if name.endswith(".weight")}
        self.expert = [Block(own or base, f"blocks.{i}.", self.shape, adapters(i)) for i in range(last - first)]
        self.head = [Block(ends, f"blocks.{i}.", self.shape) for i in range(last, self.shape["layers"])]
        T, D = plan["data"]["sequence_length"], self.shape["head_dim"]
        angle = torch.arange(T)[:, None] * self.shape["rope_theta"] ** (-torch.arange(0, D, 2) / D)
        self.cos, self.sin = torch.cat([angle, angle], -1).cos(), torch.cat([angle, angle], -1).sin()
        names = list(self.parameters)
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=1.0, weight_decay=plan["train"]["weight_decay"], fused=True)
        for name in names:  # go on where the checkpoint is
            self.optimizer.state[self.parameters[name]] = {"step": torch.tensor(float(self.step_of(checkpoint))),
                                                           "exp_avg": state["m/" + name].clone(), "exp_avg_sq": state["v/" + name].clone()}

    @staticmethod
    def step_of(path):
        data = path.read_bytes()
        return int(json.loads(data[8:8 + struct.unpack("<Q", data[:8])[0]])["__metadata__"]["tenon.step"])

    def rope(self, x):
        first, second = x.chunk(2, -1)
        return x * self.cos + torch.cat([-second, first], -1) * self.sin

    def run(self, blocks, h):
        for block in blocks:
            h = block(h, self.rope)
        return h

    def logits(self, m):
        h = F.rms_norm(self.run(self.head, m), (m.shape[-1],), self.ends["norm.weight"], self.shape["norm_eps"])
        return F.linear(h, self.ends["embed.weight" if self.shape["tied_embedding"] else "unembed.weight"])

    def step(self, line):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            loss = self.loss(line)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.plan["train"]["clip"])
        self.optimizer.param_groups[0]["lr"] = line["learning_rate"]
        self.optimizer.step()
        return loss.item()

    def loss(self, line):
        T = self.plan["data"]["sequence_length"]
        general, alone = line["kind"] == "general", "loss_alone" in line
        text = self.general if general else self.train
        x = torch.stack([text[i * T:(i + 1) * T] for i in line["blocks"]])
        with torch.no_grad():
            h = self.run(self.trunk, self.ends["embed.weight"][x].float())
            # An expert alone needs of the base position 0 only.
            base = self.run(self.base, h[:, :1] if alone else h) if not alone else F.pad(self.first(h), (0, 0, 0, T - 1))
            w = torch.ones(x.shape) if alone else torch.sigmoid((((h - self.mean) / self.deviation) * self.r).sum(-1) + self.b)
            w[:, 0] = 0
            w = w[..., None]
        m = w * self.run(self.expert, h) + (1 - w) * base
        if general:
            with torch.no_grad():
                p = self.logits(base).log_softmax(-1)
            return self.plan["train"]["kl_weight"] * F.kl_div(self.logits(m).log_softmax(-1), p, log_target=True, reduction="none").sum(-1).mean()
        return F.cross_entropy(self.logits(m)[:, :-1].flatten(0, 1), x[:, 1:].flatten())

    def first(self, h):
        cos, sin = self.cos, self.sin
        self.cos, self.sin = cos[:1], sin[:1]
        out = self.run(self.base, h[:, :1])
        self.cos, self.sin = cos, sin
        return out


def processor_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Tenon:
    """Runs `tenon expert train`, stopping it (Ctrl-C) after each round of steps."""
    def __init__(self, words, folder, steps):
        self.metrics = folder / ".run" / "metrics.jsonl"
        self.words, self.processor = words, []  # processor seconds a step, by round

    def lines(self):
        return [json.loads(line) for line in self.metrics.read_text().splitlines() if line.endswith("}")] if self.metrics.exists() else []

    def advance(self, steps):
        """At least so many steps more; returns their metrics."""
        before = len(self.lines())
        process = subprocess.Popen(self.words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seen, marks = before, []  # (steps made, processor seconds) at each new line
        while process.poll() is None and seen < before + steps:
            time.sleep(0.01)
            made = len(self.lines())
            if made > seen:
                seen = made
                marks.append((made, processor_seconds(process.pid)))
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        assert process.wait() in (0, 130), process.returncode
        if len(marks) > 1:
            self.processor.append((marks[-1][1] - marks[0][1]) / (marks[-1][0] - marks[0][0]))
        return self.lines()[before:]


def settings(expert, model):
    """Those of the expert's configuration."""
    if expert == "low_rank":
        return ["--set", "rank=16"]
    config, cut = model["config"], model["cut"]
    values = {name: config[name] for name in ("heads", "kv_heads", "head_dim", "ffn_width", "norm_eps", "rope_theta")}
    return [word for name, value in {"blocks": cut["last"] - cut["first"], **values}.items() for word in ("--set", f"{name}={value}")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tenon"), parser.add_argument("model"), parser.add_argument("data", nargs="+")
    parser.add_argument("--expert", choices=["low_rank", "transformer"], default="low_rank")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--eager-dtype", choices=["float32", "bfloat16"], help="of PyTorch's side; as --dtype unless given")
    parser.add_argument("--steps", type=int, default=10), parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    home = pathlib.Path(os.environ.get("TENON_HOME") or pathlib.Path.home() / ".local/share/tenon")
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch) / "bench"
        registry = Registry(home)
        words = [options.tenon, "expert", "train", "bench", "--model", options.model, "--arch", f"tenon.{options.expert}",
                 *settings(options.expert, registry.entry(options.model)["manifest"]), "--set", f"train.dtype={options.dtype}",
                 "--set", f"train.steps={options.rounds * (options.steps + 6) + 10}", "--out", str(folder), "-q", "--data", *options.data]
        tenon = Tenon(words, folder, options.steps)
        tenon.advance(2)  # also computes the cached outputs, which are not part of a step
        run = folder / ".run"
        plan = json.loads((run / "plan.json").read_text())
        checkpoint = pathlib.Path(scratch) / "checkpoint.safetensors"
        shutil.copy(run / "checkpoint.safetensors", checkpoint)
        digest = json.loads((run / "env.json").read_text())["identity"]["text"].split(":")[1]
        shards = home / "cache" / "corpora" / digest
        eager = Eager(registry, options.model, checkpoint, plan, read_tokens(next(shards.glob("train*"))),
                      getattr(torch, options.eager_dtype or options.dtype))
        seconds, tokens, worst, eager_processor = {"tenon": 0.0, "eager": 0.0}, 0, 0.0, []
        tenon.processor.clear()
        for round_number in range(options.rounds):
            lines, before = [line for line in tenon.advance(options.steps) if "blocks" in line], time.process_time()
            for line in lines:
                begin = time.perf_counter()
                loss = eager.step(line)
                seconds["eager"] += time.perf_counter() - begin
                seconds["tenon"] += line["tokens"] / line["tokens_per_second"]
                tokens += line["tokens"]
                worst = max(worst, abs(loss - line["loss"]) / max(1e-3, abs(line["loss"])) if line["kind"] == "domain" else abs(loss - line["loss"]))
            eager_processor.append((time.process_time() - before) / len(lines))
            print(f"round {round_number + 1}: tenon {tokens / seconds['tenon']:.1f} tokens/s, eager {tokens / seconds['eager']:.1f} tokens/s, "
                  f"ratio {seconds['eager'] / seconds['tenon']:.3f}; processor seconds a step {tenon.processor[-1]:.2f} and {eager_processor[-1]:.2f}, "
                  f"ratio {eager_processor[-1] / tenon.processor[-1]:.3f}; largest difference of a loss {worst:.1e}", flush=True)
        ratio = seconds["eager"] / seconds["tenon"]
        print(json.dumps({"tenon_tokens_per_second": tokens / seconds["tenon"], "eager_tokens_per_second": tokens / seconds["eager"],
                          "ratio": ratio, "processor_ratio": sum(eager_processor) / sum(tenon.processor), "largest_loss_difference": worst, "threads": options.threads, "torch": torch.__version__,
                          "expert": options.expert, "dtype": options.dtype, "eager_dtype": options.eager_dtype or options.dtype}))
        if worst > (1e-3 if "bfloat16" not in (options.dtype, options.eager_dtype) else 3e-2):
            sys.exit("the two sides do not compute the same loss")


main()
