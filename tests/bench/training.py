"""How fast is a training step from cached outputs, beside an eager PyTorch step of the same expert without a cache?

usage: training.py TENON MODEL DATA... [--expert low_rank | transformer] [--dtype float32 | bfloat16]
                   [--eager-dtype float32 | bfloat16] [--pairs 24] [--threads N] [--json FILE]
needs a Python with torch (.deps/peers/venv, which peers/environment.py makes, will do), a registry that holds MODEL,
TENON_HOME as for tenon.

Both sides start from one checkpoint of the expert (rank-16 adapters of every product, or as many blocks as the base
has, all of their own) and take the same blocks in the same order, step by step: while one computes the other is held.
A pair is one step of each between two probes of the machine; they take turns at being first, for which Tenon runs
once before and tells what blocks there will be. In float32 they must have the same loss at each step (to 1e-3). In
bfloat16 every product is rounded, and two runs drift apart from the first step on, to both sides: the first loss must
be the same (to 3e-3), and the mean of all (to 2e-2). PyTorch's side is what one would write by hand: trunk, base and
head as modules, autograd over expert and head, cross-entropy over all logits, AdamW fused; in bfloat16 under
autocast, the frozen matrices converted once.

The two do not do the same work in a step. PyTorch's side runs the trunk in every step, and the base in each that needs
it. Tenon ran both over all blocks beforehand, in a pass whose outputs are kept on disk for all steps and all later
trainings on this text; a step reads them. That pass is not in Tenon's time. It is made anew here, in a cache of its own:
its seconds are printed, and `ratio_with_caching` is the ratio had every step paid for its blocks, as in a training that
sees each block once and is never repeated. Prints the medians of tokens/s and of the pairs' ratios.
"""
import argparse, json, os, pathlib, re, signal, statistics, struct, subprocess, sys, tempfile, time

import torch
import torch.nn.functional as F

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "peers"))
import side


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
    def __init__(self, words, folder, home, threads):
        self.metrics = folder / ".run" / "metrics.jsonl"
        self.words, self.process = [*words, "--out", str(folder)], None
        self.variables = dict(os.environ, TENON_HOME=str(home), TENON_THREADS=str(threads), OMP_NUM_THREADS=str(threads))

    def start(self, messages=None):
        self.seen = len(self.lines())
        self.process = subprocess.Popen(self.words, stdout=subprocess.DEVNULL, stderr=messages, env=self.variables,
                                        start_new_session=True)

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


def home_with_empty_cache(home, scratch):
    """As home, but for the outputs of trunk and base: none are kept yet."""
    made = scratch / "home"
    (made / "cache").mkdir(parents=True)
    for folder, at, left_out in ((home, made, "cache"), (home / "cache", made / "cache", "streams")):
        for entry in folder.iterdir() if folder.exists() else ():
            if entry.name != left_out:
                (at / entry.name).symlink_to(entry.resolve())
    return made


def rehearse(tenon, steps, log):
    """The metrics of so many steps, and (tokens, seconds) of the pass that caches outputs."""
    with log.open("w") as messages:
        tenon.start(messages)
        while len(lines := tenon.lines()) < steps:
            if tenon.process.poll() is not None:
                sys.exit(f"the training ended with status {tenon.process.returncode}:\n{log.read_text()}")
            time.sleep(0.1)
        tenon.stop()
    told = re.findall(r"trunk and base: .*100%  \d+/(\d+) tokens  ([\d.]+) tokens/s", log.read_text())
    return lines, (sum(int(tokens) for tokens, _ in told), sum(int(tokens) / float(rate) for tokens, rate in told))


class Probe:
    """What the machine can do now: GB/s of a sum over 160 MiB, and 10^9 operations a second of a float32 product."""
    def __init__(self):
        self.memory, self.square = torch.ones(40 << 20), torch.ones(1024, 1024)

    def __call__(self):
        return {"read": 4e-9 * self.memory.numel() / self.seconds(self.memory.sum),
                "product": 2e-9 * self.square.shape[0] ** 3 / self.seconds(lambda: self.square @ self.square)}

    @staticmethod
    def seconds(work):
        times = []
        for _ in range(2):
            begin = time.perf_counter()
            work()
            times.append(time.perf_counter() - begin)
        return min(times)


def first_pair(tenon, eager):
    """As pair(), where Tenon begins: it opens its model in this step, and is held from its end on. And which step it was."""
    line, ours = tenon.step()
    begin = time.perf_counter()
    loss = eager.step(line)
    return line["step"], (line["kind"], line["tokens"], ours, line["loss"], time.perf_counter() - begin, loss, None)


def pair(number, line, tenon, eager, probe):
    """One step of both: (kind, tokens, seconds and loss of ours, seconds and loss of theirs, what the machine can do)."""
    def theirs():
        begin = time.perf_counter()
        loss = eager.step(line)
        return time.perf_counter() - begin, loss
    (told, ours), (other, loss), machine = side.pair(number, probe, tenon.step, theirs)
    assert (told["kind"], told["blocks"]) == (line["kind"], line["blocks"]), (told, line)
    print(f"{line['kind']:8} tenon {1e3 * ours:6.0f} ms, eager {1e3 * other:6.0f} ms, losses {told['loss']:.4f} and {loss:.4f}; "
          f"{machine['read']:.1f} GB/s", flush=True)
    return line["kind"], line["tokens"], ours, told["loss"], other, loss, machine


WARM_UP = 3  # pairs whose times do not count


def spread(pairs, key):
    values = [one[6][key] for one in pairs]
    return [statistics.median(values), min(values), max(values)]


def tell(tenon, options):
    version = subprocess.run([options.tenon, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    platform = json.loads((tenon.metrics.parent / "env.json").read_text())["platform"]
    side.tell([{"name": "tenon", "version": version, "threads": options.threads, "flags": f"{options.dtype}, {platform}, a step from cached outputs"},
               {"name": "PyTorch, eager", "version": torch.__version__, "threads": torch.get_num_threads(),
                "flags": f"{options.eager_dtype or options.dtype}, {torch.backends.cpu.get_cpu_capability()}, trunk and base in the step"}],
              options.pairs)


def report(pairs, cached, options):
    apart = lambda a, b: abs(a - b) / max(1e-3, abs(a))
    narrow = "bfloat16" in (options.dtype, options.eager_dtype)
    domain = [one for one in pairs if one[0] == "domain"]
    first, worst = apart(domain[0][3], domain[0][5]), max(apart(one[3], one[5]) for one in domain)
    mean = apart(*(statistics.mean(one[side] for one in domain) for side in (3, 5)))
    timed = pairs[WARM_UP:]
    tokens, seconds = cached
    rate = lambda side: statistics.median(one[1] / one[side] for one in timed)
    result = {"tenon_tokens_per_second": rate(2), "eager_tokens_per_second": rate(4), "ratio": statistics.median(one[4] / one[2] for one in timed),
              "pairs": len(timed), "first_loss_apart": first, "mean_loss_apart": mean, "worst_loss_apart": worst,
              "last_losses": [domain[-1][3], domain[-1][5]], "last_loss_apart": apart(domain[-1][3], domain[-1][5]),
              "cached_tokens": tokens, "caching_seconds": seconds,
              "ratio_with_caching": statistics.median(one[4] / (one[2] + one[1] * seconds / max(tokens, 1)) for one in timed),
              "read_gb_per_second": spread(timed, "read"), "product_gop_per_second": spread(timed, "product"), "threads": options.threads,
              "torch": torch.__version__, "expert": options.expert, "dtype": options.dtype, "eager_dtype": options.eager_dtype or options.dtype}
    print(f"\na step is {result['ratio']:.2f} times as fast; the pass over trunk and base that it reads from took {seconds:.1f} s for {tokens} "
          f"tokens and is not in it; with its share in every step {result['ratio_with_caching']:.2f} times\n"
          f"losses: first {first:.1e} apart, last {domain[-1][3]:.4f} and {domain[-1][5]:.4f}, mean {mean:.1e} apart")
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
        scratch = pathlib.Path(scratch)
        home = home_with_empty_cache(home, scratch)
        registry = Registry(home)
        words = [options.tenon, "expert", "train", "bench", "--model", options.model, "--arch", f"tenon.{options.expert}",
                 *settings(options.expert, registry.entry(options.model)["manifest"]), "--set", f"train.dtype={options.dtype}",
                 "--set", f"train.steps={options.pairs + 20}", "--set", "evaluate_every=1000000", "--data", *options.data]
        first, tenon = (Tenon(words, scratch / name, home, options.threads) for name in ("rehearsal", "bench"))
        tenon.words.append("-q")
        try:
            lines, cached = rehearse(first, options.pairs + 10, scratch / "log")
            tenon.start(), tenon.step(), tenon.step(), tenon.stop()
            eager, probe = eager_beside(tenon, registry, home, options), Probe()
            tell(tenon, options)
            tenon.start()
            step, one = first_pair(tenon, eager)
            pairs = [one] + [pair(number, lines[step + number], tenon, eager, probe) for number in range(options.pairs + WARM_UP - 1)]
        finally:
            first.stop(), tenon.stop()
    report(pairs, cached, options)


main()
