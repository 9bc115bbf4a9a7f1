"""How fast is a training step, beside an eager PyTorch step of the same expert, without cached outputs?

usage: training.py TENON MODEL DATA... [--expert low_rank | transformer] [--dtype float32 | bfloat16]
                   [--eager-dtype float32 | bfloat16] [--pairs 24] [--threads N] [--json FILE]
needs a Python with torch (the pinned wheel will do), a registry that holds MODEL, TENON_HOME as for tenon.

Both sides start from one checkpoint of the expert (rank-16 adapters of every product, or as many blocks as the base
has, all of their own) and take the same blocks in the same order, step by step in turn: while one computes the other is
held. In float32 they must have the same loss at each step (to 1e-3). In bfloat16 every product is rounded, and two runs
drift apart from the first step on, to both sides: the first loss must be the same (to 3e-3), and the mean of all (to
2e-2). PyTorch's side is what one would write by hand: trunk, base and head as modules, autograd over expert and head,
cross-entropy over all logits, AdamW fused; in bfloat16 under autocast, the frozen matrices converted once. It runs trunk
and base in each step that needs them. Prints the medians of tokens/s and of the pairs' ratios.
"""
import argparse, json, os, pathlib, signal, statistics, struct, subprocess, sys, tempfile, time

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


class Tenon:
    """Runs `tenon expert train`, and lets it go on a step at a time."""
    def __init__(self, words, folder):
        self.metrics = folder / ".run" / "metrics.jsonl"
        self.words, self.process = words, None

    def start(self):
        self.seen = len(self.lines())
        self.process = subprocess.Popen(self.words, stdout=subprocess.DEVNULL, start_new_session=True)

    def lines(self):
        return [json.loads(line) for line in self.metrics.read_text().splitlines() if line.endswith("}")] if self.metrics.exists() else []

    def step(self):
        """The next step's metrics, and its seconds; the program is held until the next call."""
        self.process.send_signal(signal.SIGCONT)
        begin = time.perf_counter()
        while len(lines := self.lines()) == self.seen:
            assert self.process.poll() is None, f"the training ended: {self.process.returncode}"
            time.sleep(0.002)
        seconds = time.perf_counter() - begin
        self.process.send_signal(signal.SIGSTOP)
        self.seen += 1
        return lines[self.seen - 1], seconds

    def stop(self):
        """As Ctrl-C does: leaves a checkpoint."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.send_signal(signal.SIGCONT)
            if self.process.wait() not in (0, 130):
                sys.exit(f"the training ended with status {self.process.returncode}")


def settings(expert, model):
    """Those of the expert's configuration."""
    if expert == "low_rank":
        return ["--set", "rank=16"]
    config, cut = model["config"], model["cut"]
    values = {name: config[name] for name in ("heads", "kv_heads", "head_dim", "ffn_width", "norm_eps", "rope_theta")}
    return [word for name, value in {"blocks": cut["last"] - cut["first"], **values}.items() for word in ("--set", f"{name}={value}")]


def eager_beside(tenon, registry, home, options):
    """PyTorch's side, where Tenon's checkpoint is."""
    run = tenon.metrics.parent
    digest = json.loads((run / "env.json").read_text())["identity"]["text"].split(":")[1]
    train = read_tokens(next((home / "cache" / "corpora" / digest).glob("train*")))
    return Eager(registry, options.model, run / "checkpoint.safetensors", json.loads((run / "plan.json").read_text()), train,
                 getattr(torch, options.eager_dtype or options.dtype))


def pair(tenon, eager):
    """One step of both: (kind, tokens, seconds and loss of ours, seconds and loss of theirs)."""
    line, ours = tenon.step()
    begin = time.perf_counter()
    loss = eager.step(line)
    theirs = time.perf_counter() - begin
    print(f"{line['kind']:8} tenon {1e3 * ours:6.0f} ms, eager {1e3 * theirs:6.0f} ms, losses {line['loss']:.4f} and {loss:.4f}", flush=True)
    return line["kind"], line["tokens"], ours, line["loss"], theirs, loss


WARM_UP = 3  # pairs whose times do not count


def report(pairs, options):
    apart = lambda a, b: abs(a - b) / max(1e-3, abs(a))
    narrow = "bfloat16" in (options.dtype, options.eager_dtype)
    domain = [one for one in pairs if one[0] == "domain"]
    first, worst = apart(domain[0][3], domain[0][5]), max(apart(one[3], one[5]) for one in domain)
    mean = apart(*(statistics.mean(one[side] for one in domain) for side in (3, 5)))
    timed = pairs[WARM_UP:]
    rate = lambda side: statistics.median(one[1] / one[side] for one in timed)
    result = {"tenon_tokens_per_second": rate(2), "eager_tokens_per_second": rate(4), "ratio": statistics.median(one[4] / one[2] for one in timed),
              "pairs": len(timed), "first_loss_apart": first, "mean_loss_apart": mean, "worst_loss_apart": worst, "threads": options.threads,
              "torch": torch.__version__, "expert": options.expert, "dtype": options.dtype, "eager_dtype": options.eager_dtype or options.dtype}
    print(json.dumps(result))
    if options.json:
        options.json.write_text(json.dumps(result) + "\n")
    general = max((abs(one[3] - one[5]) for one in pairs if one[0] == "general"), default=0)
    if (first > 3e-3 or mean > 2e-2) if narrow else max(worst, general) > 1e-3:
        sys.exit("the two sides do not compute the same loss")


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the other side, which may be held, is ended too
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tenon"), parser.add_argument("model"), parser.add_argument("data", nargs="+")
    parser.add_argument("--expert", choices=["low_rank", "transformer"], default="low_rank")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--eager-dtype", choices=["float32", "bfloat16"], help="of PyTorch's side; as --dtype unless given")
    parser.add_argument("--pairs", type=int, default=24), parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=pathlib.Path, help="where the result goes, too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    home = pathlib.Path(os.environ.get("TENON_HOME") or pathlib.Path.home() / ".local/share/tenon")
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch) / "bench"
        registry = Registry(home)
        words = [options.tenon, "expert", "train", "bench", "--model", options.model, "--arch", f"tenon.{options.expert}",
                 *settings(options.expert, registry.entry(options.model)["manifest"]), "--set", f"train.dtype={options.dtype}",
                 "--set", f"train.steps={options.pairs + 10}", "--set", "evaluate_every=1000000", "--out", str(folder), "-q", "--data", *options.data]
        tenon = Tenon(words, folder)
        try:
            tenon.start(), tenon.step(), tenon.step(), tenon.stop()  # also computes the cached outputs, which are not part of a step
            eager = eager_beside(tenon, registry, home, options)
            tenon.start()
            pairs = [pair(tenon, eager) for _ in range(options.pairs + WARM_UP)]
        finally:
            tenon.stop()
    report(pairs, options)


main()
