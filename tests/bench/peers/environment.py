"""Installs the peers once, into .deps/peers: llama.cpp through llama-cpp-python, built for this processor (the build
takes a quarter of an hour on one core), and transformers beside the LibTorch that host/setup.sh fetched.
"""
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / ".deps" / "peers"
PYTHON = FOLDER / "venv" / "bin" / "python"
LLAMA = "llama-cpp-python==0.3.36"
TRANSFORMERS = ["transformers>=5,<6", "gguf", "numpy", "safetensors", "accelerate", "sympy", "networkx", "jinja2", "fsspec"]
CMAKE = ("-DGGML_NATIVE=ON -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_TESTS=OFF "
         "-DLLAMA_BUILD_SERVER=OFF -DMTMD_BUILD=OFF")


def once(name, key, work):
    stamp = FOLDER / f"{name}.stamp"
    if stamp.exists() and stamp.read_text() == key:
        return
    print(f"peers: installing {name} (once)", file=sys.stderr)
    work()
    stamp.write_text(key)


def pip(*words, **environment):
    subprocess.run([PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check", *words], check=True,
                   env=dict(os.environ, **environment))


def borrow_torch():
    """LibTorch's wheel is there already: this environment sees it through a .pth file, and needs no second copy."""
    theirs = next((ROOT / ".deps" / "venv" / "lib").glob("python3*/site-packages"))
    ours = next((FOLDER / "venv" / "lib").glob("python3*/site-packages"))
    (ours / "torch_of_setup.pth").write_text(f"{theirs}\n")


def transformers():
    borrow_torch()
    subprocess.run([PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check", *TRANSFORMERS], check=True)


def make(with_transformers):
    """The peers' Python."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", FOLDER / "venv"], check=True)
    once("llama.cpp", LLAMA + CMAKE, lambda: pip("--no-binary", "llama-cpp-python", LLAMA, CMAKE_ARGS=CMAKE))
    if with_transformers:
        once("transformers", " ".join(TRANSFORMERS), transformers)
    return PYTHON


if __name__ == "__main__":
    print(make(True))
