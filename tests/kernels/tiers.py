"""Holds the object files of the processor tiers apart: none has a function that the linker may merge with another's.

A function that is compiled in several tiers' files and not dissolved in its callers stands in each as a weak symbol, of
which the linker keeps one, whichever comes first: on an older processor that may be the one with the newer instructions.

  tiers.py OBJECT...     the object files of the library; those named kernels_avx*.cpp.o are looked at
"""
import os
import subprocess
import sys


def merged(path):
    """Weak functions of an object file, but for what compilers and sanitizers keep for themselves."""
    lines = subprocess.run(["nm", "--demangle", path], capture_output=True, text=True, check=True).stdout.splitlines()
    names = [line.split(None, 2)[2] for line in lines if len(line.split(None, 2)) == 3 and line.split()[1] in "WV"]
    return sorted({name for name in names if not name.startswith(("DW.ref.", "__asan", "__ubsan", "__tsan"))})


def main(paths):
    tiers = [path for path in paths if os.path.basename(path).startswith("kernels_avx")]
    if not tiers:
        sys.exit(f"tiers: found no object file of a tier among {' '.join(paths)}")
    found = [f"  {os.path.basename(path)}: {name}" for path in tiers for name in merged(path)]
    if found:
        sys.exit("tiers: these functions may be linked into another tier; make them TENON_INLINE or static:\n"
                 + "\n".join(found))
    print(f"tiers: {len(tiers)} objects share no function")


if __name__ == "__main__":
    main(sys.argv[1:])
