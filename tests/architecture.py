#!/usr/bin/env python3
"""Holds the architecture: the arrows between folders, and a few promises that a reader could otherwise only hope for.

usage: architecture.py ROOT | architecture.py --self-test

Rules: top-level (exactly these names), arrow (includes), link (CMake link lines), torch-free (what parses bytes),
torch-header (<torch/torch.h> in no header), product (every product in trunk, head and plugins is a tenon::nn block),
threads (work is shared out among LibTorch's threads by kernels/threads.hpp, since at::parallel_for shares nothing out in
a file that is compiled without OpenMP), unfinished (no notes to come back later), outside (nothing leans on folders outside this one).
--self-test plants a violation of each rule in a small tree and fails unless exactly that rule objects.
"""
import posixpath
import re
import sys
import tempfile
from pathlib import Path

TOP_LEVEL = {"CMakeLists.txt", "README.md", "host", "kernels", "plugins", "registry", "sdk", "tests"}
MAY_USE = {
    "sdk": set(),
    "registry": {"sdk"},
    "kernels": {"sdk"},
    "plugins": {"sdk"},
    "host": {"sdk", "registry", "kernels"},
    "tests": {"sdk", "registry", "kernels", "plugins", "host"},
}
# Inside host each folder uses only those before it.
HOST_ORDER = ["formats", "model", "loading", "routing", "execution", "composition", "inference", "training",
              "evaluation", "analysis", "serving", "report", "cli"]
# What parses bytes builds, and runs under the sanitizers, without LibTorch.
TORCH_FREE = re.compile(r"registry/|kernels/cpu/|host/formats/|host/loading/(facts|elf)[^/]*$|host/cli/(main|command|output|home)\.")
TORCH_INCLUDE = re.compile(r"(torch|ATen|c10|caffe2)/")
PRODUCT_FOLDERS = re.compile(r"host/model/|plugins/|sdk/template/")
PRODUCT_NAMES = (r"(linear|matmul|mm|bmm|mv|addmm|addmv|baddbmm|addbmm|einsum|tensordot|inner|outer|dot|ger|chain_matmul|"
                 r"conv1d|conv2d|bilinear|scaled_dot_product_attention|gru|lstm)")
PRODUCT = re.compile(
    rf"\b(at|torch|F|functional|linalg)::_?{PRODUCT_NAMES}\b|(\.|->){PRODUCT_NAMES}_?\(|"
    r"\btorch::nn::(Linear|Bilinear|Conv[123]d|GRU|LSTM|RNN|MultiheadAttention|Transformer)")
THREADS = re.compile(r"\bat::parallel_(for|reduce)\b")
UNFINISHED = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "not " + "implemented", "not yet " + "supported"]),
                        re.IGNORECASE)
OUTSIDE = re.compile(r"\.\./" + r"shared\b|(?<![\w.])/" + r"work/|/tmp/" + r"build")
TYPE = re.compile(r"^(?:struct|class|enum class) (\w+)(?: final)?\s*(?::(?!:)[^;{]*)?\{", re.MULTILINE)
CODE = {".c", ".h", ".cpp", ".hpp", ".cu", ".cuh"}
HEADERS = {".h", ".hpp", ".cuh"}
TEXT = CODE | {".py", ".sh", ".md", ".txt", ".cmake", ".json", ".in", ".yml", ".yaml"}


def without_comments(code):
    """Comments and string contents blanked, lines kept."""
    pattern = r'//[^\n]*|/\*.*?\*/|R"\((?:.*?)\)"|"(?:\\.|[^"\\\n])*"'
    return re.sub(pattern, lambda match: re.sub(r"[^\n]", " ", match.group()), code, flags=re.DOTALL)


def line_of(text, position):
    return text.count("\n", 0, position) + 1


class Checker:
    def __init__(self, root):
        self.root = Path(root)
        self.found = []  # (rule, place, message)

    def object_to(self, rule, place, message):
        self.found.append((rule, place, message))

    def files(self, suffixes):
        for top in sorted(self.root.iterdir()):
            if top.name.startswith("."):
                continue
            for path in [top] if top.is_file() else sorted(top.rglob("*")):
                relative = path.relative_to(self.root).as_posix()
                hidden = any(part.startswith(".") or part == "__pycache__" for part in relative.split("/"))
                if path.is_file() and path.suffix in suffixes and not hidden:
                    yield relative, path.read_text("utf-8", "replace")

    def top_level(self):
        names = {path.name for path in self.root.iterdir() if not path.name.startswith(".")}
        for name in sorted(names - TOP_LEVEL):
            self.object_to("top-level", name, "does not belong at the top")
        for name in sorted(TOP_LEVEL - names):
            self.object_to("top-level", name, "is missing")

    def include_target(self, file, name, quoted):
        """The layer and path an include leads to, or None if it leaves the house."""
        if name.startswith("tenon/"):
            return "sdk", name
        if not quoted:
            return None
        top = name.split("/")[0]
        if top == "generated":  # written by the build, from this layer's own files
            return None
        if top in MAY_USE:
            return top, name
        beside = posixpath.normpath(posixpath.join(posixpath.dirname(file), name))
        if file.split("/")[0] in ("plugins", "sdk", "tests") and (self.root / beside).exists():
            return beside.split("/")[0], beside
        self.object_to("arrow", file, f'"{name}" does not name its folder from the root')
        return None

    def includes(self):
        for file, code in self.files(CODE):
            layer = file.split("/")[0]
            if layer not in MAY_USE:
                continue
            for match in re.finditer(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', code, re.MULTILINE):
                name, place = match.group(2), f"{file}:{line_of(code, match.start())}"
                if name == "torch/torch.h" and Path(file).suffix in HEADERS:
                    self.object_to("torch-header", place, "<torch/torch.h> costs 20 s in every file that sees this header")
                if TORCH_FREE.match(file) and TORCH_INCLUDE.match(name):
                    self.object_to("torch-free", place, f"<{name}> in a part that does without LibTorch")
                target = self.include_target(file, name, match.group(1) == '"')
                if target:
                    self.arrow(file, place, *target)

    def arrow(self, file, place, target, path):
        layer = file.split("/")[0]
        if target != layer and target not in MAY_USE[layer]:
            self.object_to("arrow", place, f"{layer} may not use {target} ({path})")
        if layer == target == "plugins" and file.split("/")[1] != path.split("/")[1]:
            self.object_to("arrow", place, f"a plugin may not use another plugin ({path})")
        if layer == target == "host" and path.count("/") > 1 and file.count("/") > 1:
            here, there = file.split("/")[1], path.split("/")[1]
            for folder in (here, there):
                if folder not in HOST_ORDER:
                    self.object_to("arrow", place, f"host/{folder} is no folder of the design")
                    return
            if HOST_ORDER.index(there) > HOST_ORDER.index(here):
                self.object_to("arrow", place, f"host/{here} may not use host/{there}: it comes later")

    def links(self):
        texts = {file: text for file, text in self.files({".txt", ".cmake"}) if Path(file).name == "CMakeLists.txt" or
                 file.endswith(".cmake")}
        texts = {file: re.sub(r"#[^\n]*", "", text) for file, text in texts.items()}
        owner = {}
        for file, text in texts.items():
            layer = file.split("/")[0]
            for match in re.finditer(r"\badd_(?:library|executable)\s*\(\s*([\w:]+)", text):
                owner[match.group(1)] = layer
        for file, text in texts.items():
            layer = file.split("/")[0]
            for match in re.finditer(r"\btarget_link_libraries\s*\(([^)]*)\)", text):
                target, *used = match.group(1).split()
                from_layer = owner.get(target, layer)
                for name in used:
                    to_layer = owner.get(name)
                    if from_layer in MAY_USE and to_layer in MAY_USE and to_layer != from_layer and \
                            to_layer not in MAY_USE[from_layer]:
                        self.object_to("link", f"{file}:{line_of(text, match.start())}",
                                       f"{target} ({from_layer}) may not link {name} ({to_layer})")

    def threads(self):
        for file, code in self.files(CODE):
            for match in THREADS.finditer(without_comments(code)):
                if file != "kernels/threads.cpp":
                    self.object_to("threads", f"{file}:{line_of(code, match.start())}",
                                   f"{match.group()} where tenon::parallel_for belongs")

    def products(self):
        for file, code in self.files(CODE):
            if PRODUCT_FOLDERS.match(file):
                for match in PRODUCT.finditer(without_comments(code)):
                    self.object_to("product", f"{file}:{line_of(code, match.start())}",
                                   f"{match.group().strip('.(')} is a product outside tenon::nn")

    def types(self):
        """One name, one type: two of the same name would share their functions when linked, and crash far away."""
        first = {}
        for file, code in self.files(HEADERS):
            if not file.startswith(("host/", "registry/", "kernels/")):
                continue
            for match in TYPE.finditer(without_comments(code)):
                place = f"{file}:{line_of(code, match.start())}"
                if match.group(1) in first:
                    self.object_to("one-name", place, f"{match.group(1)} is also a type in {first[match.group(1)]}")
                first.setdefault(match.group(1), place)

    def words(self):
        for file, text in self.files(TEXT):
            for rule, pattern in (("unfinished", UNFINISHED), ("outside", OUTSIDE)):
                for match in pattern.finditer(text):
                    self.object_to(rule, f"{file}:{line_of(text, match.start())}", f"found {match.group()!r}")

    def run(self):
        self.top_level()
        self.includes()
        self.links()
        self.threads()
        self.products()
        self.types()
        self.words()
        return self.found


SOUND = {
    "CMakeLists.txt": "", "README.md": "# Tenon\n",
    "sdk/CMakeLists.txt": "add_library(tenon_sdk INTERFACE)\nadd_library(tenon::sdk ALIAS tenon_sdk)\n",
    "sdk/include/tenon/plugin.h": "#include <stdint.h>\n",
    "sdk/include/tenon/expert.hpp": "#include <tenon/plugin.h>\n#include <torch/nn/module.h>\n",
    "registry/CMakeLists.txt": "add_library(tenon_registry STATIC)\ntarget_link_libraries(tenon_registry PUBLIC tenon::sdk)\n",
    "registry/index.cpp": '#include "registry/index.hpp"\n', "registry/index.hpp": "#include <tenon/plugin.h>\n",
    "kernels/CMakeLists.txt": "add_library(tenon_kernels STATIC)\n", "kernels/blocks.hpp": "",
    "plugins/CMakeLists.txt": "add_library(tenon_low_rank MODULE)\ntarget_link_libraries(tenon_low_rank PRIVATE tenon::sdk)\n",
    "plugins/low_rank/low_rank.cpp": '#include <tenon/expert.hpp>\n// not at::linear(x) but a block\nauto y = linear_->forward(x);\n',
    "host/CMakeLists.txt": "add_library(tenon_host STATIC)\n"
                           "target_link_libraries(tenon_host PUBLIC tenon_registry tenon_kernels)\n",
    "host/formats/gguf.hpp": '#include "registry/index.hpp"\n',
    "host/model/trunk.cpp": '#include "host/formats/gguf.hpp"\n#include <torch/torch.h>\n',
    "host/cli/main.cpp": '#include "host/model/trunk.hpp"\n#include "generated/template.hpp"\n',
    "tests/CMakeLists.txt": "add_executable(tenon_tests)\ntarget_link_libraries(tenon_tests PRIVATE tenon_host)\n",
    "tests/a.cpp": '#include "host/formats/gguf.hpp"\n',
}

PLANTED = [
    ("top-level", "notes.md", "a stray page\n"),
    ("arrow", "registry/bad.cpp", '#include "host/formats/gguf.hpp"\n'),
    ("arrow", "sdk/include/tenon/bad.hpp", '#include "kernels/blocks.hpp"\n'),
    ("arrow", "kernels/bad.cpp", '#include "registry/index.hpp"\n'),
    ("arrow", "plugins/low_rank/bad.cpp", '#include "registry/index.hpp"\n'),
    ("arrow", "plugins/other/bad.cpp", '#include "../low_rank/low_rank.cpp"\n'),
    ("arrow", "host/formats/bad.hpp", '#include "host/model/trunk.hpp"\n'),
    ("arrow", "host/model/bad.cpp", '#include "host/cli/output.hpp"\n'),
    ("arrow", "host/extra/bad.cpp", '#include "host/formats/gguf.hpp"\n'),
    ("arrow", "host/model/bad.cpp", '#include "trunk.hpp"\n'),
    ("link", "registry/CMakeLists.txt", "add_library(r)\ntarget_link_libraries(r PUBLIC tenon_host)\n"),
    ("link", "plugins/CMakeLists.txt", "add_library(p)\ntarget_link_libraries(p PRIVATE tenon_kernels)\n"),
    ("torch-free", "registry/bad.hpp", "#include <ATen/core/Tensor.h>\n"),
    ("torch-free", "host/formats/bad.cpp", "#include <torch/torch.h>\n"),
    ("torch-free", "host/loading/facts_bad.cpp", "#include <c10/core/Device.h>\n"),
    ("torch-header", "host/model/bad.hpp", "#include <torch/torch.h>\n"),
    ("product", "host/model/bad.cpp", "auto y = at::linear(x, w);\n"),
    ("product", "host/model/bad.cpp", "auto y = x.matmul(w);\n"),
    ("product", "plugins/low_rank/bad.cpp", "torch::nn::Linear a{nullptr};\n"),
    ("product", "plugins/low_rank/bad.cpp", "auto y = torch::addmm(b, x, w);\n"),
    ("one-name", "host/model/bad.hpp", "struct Row {};\n" * 2),
    ("threads", "host/model/bad.cpp", "at::parallel_for(0, n, 1, each);\n"),
    ("unfinished", "host/model/bad.cpp", "// TO" + "DO: later\n"),
    ("unfinished", "tests/bad.sh", "# FIX" + "ME\n"),
    ("outside", "tests/bad.sh", "cat ../" + "shared/design.md\n"),
]


def write_tree(root, tree):
    for name, text in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def self_test():
    """A sound tree passes; each planted violation is found by its own rule and no other. Returns the failures."""
    failures = []
    for rule, name, text in [("", "", "")] + PLANTED:
        with tempfile.TemporaryDirectory() as folder:
            write_tree(Path(folder), SOUND | ({name: text} if name else {}))
            found = Checker(folder).run()
        expected = {rule} if rule else set()
        if {one[0] for one in found} != expected:
            failures.append(f"{name or 'the sound tree'}: expected {expected or 'nothing'}, found {found}")
    return failures


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if sys.argv[1] == "--self-test":
        failures = self_test()
        print("\n".join(failures) or f"architecture: each of {len(PLANTED)} planted violations is found")
    else:
        failures = [f"[{rule}] {place}: {message}" for rule, place, message in Checker(sys.argv[1]).run()]
        print("\n".join(failures) or "architecture: sound")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
