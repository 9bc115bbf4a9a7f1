#!/usr/bin/env python3
"""Builds the text corpora under .deps/corpora from Debian packages and one wheel, the same bytes every time.

usage: corpora.py DEPS_DIR

calibration  D_0: what a model package carries and rows are fitted against; many kinds of text, each a little
general      evaluation text of many kinds, from other packages than D_0
setmm        formal mathematics: set.mm
services     descriptions of web services in JSON
python       Python's standard library
french       manual pages in French
characters   the names of Unicode's characters, with notes

Packages are fetched as .deb files and unpacked here, not installed: the system stays as it is, and machines that
strip documentation when they install get the same text. Every corpus is a folder of small files, so that a split by
file is a split by document; SOURCES.json beside them says what came from where and under which licence.
"""
import gzip
import hashlib
import html.parser
import json
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

DOCUMENT_BYTES = 16_000
SETMM = "usr/share/metamath/databases/set.mm"


# Readers: bytes of one file to clean text.

def plain(data):
    return data.decode("utf-8", "replace")


def quotations(data):
    return "\n\n".join(part.strip("\n") for part in plain(data).split("\n%\n"))


ROFF_ESCAPES = [(r'\\".*', ""), (r"\\f(\(..|\[[^\]]*\]|.)", ""), (r"\\s[-+]?\d+", ""), (r"\\m?\[[^\]]*\]", ""),
                (r"\\\((aq|cq|oq)", "'"), (r"\\\((dq|lq|rq)", '"'), (r"\\\(en", "-"), (r"\\\(em", "--"),
                (r"\\\(ti", "~"), (r"\\\(ha", "^"), (r"\\\(bu", "*"), (r"\\\(..", ""), (r"\\-", "-"),
                (r"\\(&|%|/|,|\||\^|c|:|~|0)", ""), (r"\\e", r"\\"), (r"\\ ", " ")]
ROFF_TEXT = {"B", "I", "BR", "RB", "BI", "IB", "IR", "RI", "SM", "SB", "IP", "UR", "MT"}


def manual(data):
    """A manual page as text: headings, paragraphs, hanging tags; font changes and drawing requests go."""
    lines = []
    in_table = False
    for line in plain(data).splitlines():
        for pattern, text in ROFF_ESCAPES:
            line = re.sub(pattern, text, line)
        if line.startswith((".TS", ".TE")):
            in_table = line.startswith(".TS")
        if in_table or line.startswith("'"):
            continue
        if not line.startswith("."):
            lines.append(line)
            continue
        request, _, rest = line[1:].strip().partition(" ")
        words = [a or b for a, b in re.findall(r'"([^"]*)"|(\S+)', rest)]
        if request in ("SH", "SS"):
            lines += ["", " ".join(words), ""]
        elif request in ROFF_TEXT:
            alternate = request in ("BR", "RB", "BI", "IB", "IR", "RI")
            lines.append(("" if alternate else " ").join(words[:1] if request == "IP" else words))
        elif request in ("PP", "P", "LP", "TP", "sp", "EX", "EE"):
            lines.append("")
    return "\n".join(lines)


class HtmlText(html.parser.HTMLParser):
    BLOCKS = {"p", "div", "li", "h1", "h2", "h3", "h4", "tr", "pre", "dt", "dd", "blockquote", "title", "section",
              "item", "page", "note", "steps", "list", "table", "br"}
    HIDDEN = {"script", "style", "nav", "head", "info", "media"}

    def __init__(self):
        super().__init__()
        self.parts, self.hidden, self.verbatim = [], 0, 0

    def handle_starttag(self, tag, attrs):
        self.hidden += tag in self.HIDDEN
        self.verbatim += tag == "pre"
        if tag in self.BLOCKS:
            self.parts.append("\n")

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        self.hidden = max(0, self.hidden - (tag in self.HIDDEN))
        self.verbatim = max(0, self.verbatim - (tag == "pre"))
        if tag in self.BLOCKS:
            self.parts.append("\n")

    def handle_data(self, text):
        if not self.hidden:
            self.parts.append(text if self.verbatim else re.sub(r"\s+", " ", text))


def markup(data):
    parser = HtmlText()
    parser.feed(plain(data))
    return "\n\n".join(line.strip() for line in re.split(r"\n\s*", "".join(parser.parts)) if line.strip())


def r_vectors(data):
    """The strings of an R lazy-load database: records of a length and a zlib stream of serialised vectors."""
    lines, at = [], 0
    while at + 6 <= len(data):
        stream = zlib.decompressobj()
        record = stream.decompress(data[at + 4:])
        at = len(data) - len(stream.unused_data)
        # A string: flags that end in type 9, a length, its bytes.
        for match in re.finditer(rb"\x00[\x00-\x04][\x00-\xff]\x09\x00\x00(..)", record, re.DOTALL):
            length = int.from_bytes(match.group(1), "big")
            lines.append(record[match.end():match.end() + length].decode("utf-8", "replace"))
    return "\n".join(lines)


def dictionary(data):
    return gzip.decompress(data).decode("utf-8", "replace") if data[:2] == b"\x1f\x8b" else plain(data)


def glosses(data):
    """WordNet's data files: a line a meaning; its words and its gloss."""
    out = []
    for line in plain(data).splitlines():
        fields = line.split(" | ")
        if line.startswith(" ") or len(fields) != 2:
            continue
        words = fields[0].split()
        count = int(words[3], 16)
        names = ", ".join(words[4 + 2 * i].replace("_", " ") for i in range(count))
        out.append(f"{names}: {fields[1].strip()}")
    return "\n".join(out)


# corpus, kind, package, files, reader, bytes wanted, bytes from one file at most.
DOC = "usr/share/doc/"
SOURCES = [
    ("calibration", "prose", "r-cran-janeaustenr", "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb", r_vectors,
     170_000, 170_000),
    ("calibration", "handbooks", "developers-reference",
     "usr/share/developers-reference/developers-reference.txt.gz", plain, 80_000, 80_000),
    ("calibration", "handbooks", "debian-reference-en", "usr/share/debian-reference/debian-reference.en.txt.gz",
     plain, 80_000, 80_000),
    ("calibration", "manuals", "manpages", "usr/share/man/man[578]/*.gz", manual, 120_000, 10_000),
    ("calibration", "code", "libboost1.81-dev", "usr/include/boost/[a-m]*/*.hpp", plain, 100_000, 6_000),
    ("calibration", "code", "perl-modules-5.36", "usr/share/perl/5.*/[A-Z]*/*.pm", plain, 90_000, 8_000),
    ("calibration", "code", "linux-libc-dev", "usr/include/linux/*.h", plain, 50_000, 6_000),
    ("calibration", "json", "iso-codes", "usr/share/iso-codes/json/iso_*.json", plain, 48_000, 6_000),
    ("calibration", "json", "nodejs-doc", DOC + "nodejs/api/*.json*", plain, 80_000, 6_000),
    ("calibration", "quotations", "fortunes",
     "usr/share/games/fortunes/{art,computers,education,law,literature,people,platitudes,science,songs-poems,tao,"
     "wisdom}", quotations, 100_000, 12_000),
    ("calibration", "dictionary", "jargon-text", DOC + "jargon-text/jargon.txt.gz", plain, 60_000, 60_000),
    ("calibration", "dictionary", "dict-devil", "usr/share/dictd/devil.dict.dz", dictionary, 40_000, 40_000),
    ("calibration", "licences", "base-files", "usr/share/common-licenses/{Apache-2.0,Artistic,GPL-2,LGPL-2.1,MPL-2.0}",
     plain, 40_000, 12_000),
    ("calibration", "changelogs", "manpages", DOC + "manpages/Changes.old.gz", plain, 40_000, 40_000),

    ("general", "prose", "sqlite3-doc", DOC + "sqlite3/*.html", markup, 90_000, 8_000),
    ("general", "help", "gnome-user-docs", "usr/share/help/C/gnome-help/*.page", markup, 60_000, 6_000),
    ("general", "prose", "doc-debian", DOC + "debian/{constitution,social-contract,mailing-lists,bug-reporting}.txt.gz",
     plain, 40_000, 16_000),
    ("general", "manuals", "git-doc", DOC + "git-doc/git*.txt", plain, 60_000, 6_000),
    ("general", "code", "golang-golang-x-net-dev", "usr/share/gocode/src/golang.org/x/net/*/*.go", plain, 40_000, 6_000),
    ("general", "code", "nlohmann-json3-dev", "usr/include/nlohmann/detail/*/*.hpp", plain, 24_000, 6_000),
    ("general", "json", "json-schema-test-suite", "usr/share/json-schema-test-suite/tests/draft7/*.json", plain,
     16_000, 2_000),
    ("general", "dictionary", "wordnet-base", "usr/share/wordnet/data.*", glosses, 24_000, 6_000),
    ("general", "hints", "fortunes-debian-hints", "usr/share/games/fortunes/debian-hints", quotations, 16_000, 16_000),

    ("python", "code", "libpython3.11-stdlib", "usr/lib/python3.11/**/*.py", plain, 2_600_000, 20_000),
    ("french", "manuals", "manpages-fr", "usr/share/man/fr/man[1-8]/*.gz", manual, 1_600_000, 16_000),
    ("characters", "names", "unicode-data", "usr/share/unicode/NamesList.txt", plain, 1_200_000, 1_200_000),
]

LICENCES = {
    "r-cran-janeaustenr": "texts public domain (package MIT)", "developers-reference": "GPL-2+",
    "debian-reference-en": "GPL-2+", "manpages": "GPL-2+, BSD, verbatim (per page)", "libboost1.81-dev": "BSL-1.0",
    "perl-modules-5.36": "Artistic or GPL-1+", "linux-libc-dev": "GPL-2 with syscall note", "iso-codes": "LGPL-2.1+",
    "nodejs-doc": "MIT", "fortunes": "BSD-3-clause", "jargon-text": "public domain", "dict-devil": "public domain",
    "base-files": "licence texts, verbatim", "sqlite3-doc": "public domain", "gnome-user-docs": "CC-BY-SA-3.0",
    "doc-debian": "GPL-2+ and public domain", "git-doc": "GPL-2", "golang-golang-x-net-dev": "BSD-3-clause",
    "nlohmann-json3-dev": "MIT", "json-schema-test-suite": "MIT", "wordnet-base": "WordNet licence",
    "fortunes-debian-hints": "GPL-2+", "libpython3.11-stdlib": "PSF-2", "manpages-fr": "GPL-3+ and as the originals",
    "unicode-data": "Unicode licence", "metamath-databases": "CC0-1.0", "botocore": "Apache-2.0",
}


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fetch_packages(patterns, folder):
    """For each {package: patterns}: what matches, under folder/PACKAGE. Returns {package: (version, sha256)}."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, wanted in sorted(patterns.items()):
        unpacked, unpacking = folder / name, folder / f"{name}.new"
        if not (folder / f"{name}.json").exists() or not all(matching(unpacked, pattern) for pattern in wanted):
            for stale in folder.glob(f"{name}_*.deb"):
                stale.unlink()
            result = subprocess.run(["apt-get", "download", "-q", name], cwd=folder, capture_output=True, text=True)
            debs = list(folder.glob(f"{name}_*.deb"))
            if result.returncode or len(debs) != 1:
                sys.exit(f"corpora: cannot fetch the Debian package {name}:\n{result.stderr}"
                         "remedy: run `apt-get update` as root, then this again")
            for stale in (unpacked, unpacking):
                shutil.rmtree(stale, ignore_errors=True)
            subprocess.run(["dpkg-deb", "-x", debs[0], unpacking], check=True)
            for path in {path for pattern in wanted for path in matching(unpacking, pattern)}:
                kept = unpacked / path.relative_to(unpacking.resolve())
                kept.parent.mkdir(parents=True, exist_ok=True)
                path.rename(kept)
            shutil.rmtree(unpacking)
            version = subprocess.check_output(["dpkg-deb", "-f", debs[0], "Version"], text=True).strip()
            (folder / f"{name}.json").write_text(json.dumps([version, digest(debs[0])]))
            debs[0].unlink()
        found[name] = tuple(json.loads((folder / f"{name}.json").read_text()))
    return found


def matching(root, pattern):
    """Files under root for a glob with {a,b} alternatives, in one order everywhere."""
    group = re.search(r"\{([^}]*)\}", pattern)
    patterns = [pattern]
    if group:
        patterns = [pattern[:group.start()] + choice + pattern[group.end():] for choice in group.group(1).split(",")]
    root = root.resolve()
    # A file reached through a linked folder is the same file twice.
    found = {path for one in patterns for path in root.glob(one) if path.is_file() and path.resolve() == path}
    return sorted(found, key=lambda path: path.as_posix())


def read(path, reader):
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    text = reader(data).replace("\r\n", "\n").replace("\t", "    " if reader is manual else "\t")
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+\n", "\n", text)).strip("\n") + "\n"


def cut(text, limit):
    """At most limit bytes of text, from the middle, whole lines: beginnings are licences and tables of contents."""
    data = text.encode()
    if len(data) <= limit:
        return text
    start = (len(data) - limit) // 2
    piece = data[start:start + limit]
    first, last = piece.find(b"\n"), piece.rfind(b"\n")
    return piece[first + 1:last + 1].decode("utf-8", "ignore") if last > first >= 0 else piece.decode("utf-8", "ignore")


def documents(text):
    """Pieces of about DOCUMENT_BYTES that end at a blank line, or at a line's end where there is none."""
    piece = ""
    for line in text.splitlines(keepends=True):
        piece += line
        size = len(piece.encode())
        if size >= DOCUMENT_BYTES and (not line.strip() or size >= 2 * DOCUMENT_BYTES):
            yield piece
            piece = ""
    if piece.strip():
        yield piece


def spread(items, count):
    """count of the items, evenly spaced."""
    return items if len(items) <= count else [items[i * len(items) // count] for i in range(count)]


def write_documents(folder, stem, text):
    folder.mkdir(parents=True, exist_ok=True)
    size = 0
    for number, piece in enumerate(documents(text)):
        (folder / f"{stem}-{number:03}.txt").write_text(piece, encoding="utf-8")
        size += len(piece.encode())
    return size


def take(root, out, source):
    """Writes one source's share; returns (bytes, files used)."""
    corpus, kind, package, pattern, reader, wanted, from_each = source
    files = matching(root / package, pattern)
    if not files:
        sys.exit(f"corpora: {package} has no file that matches {pattern}; did its layout change?")
    size, used = 0, []
    chosen = spread(files, 4 * wanted // from_each)
    # A stride through the list, so that stopping at the budget leaves the spread even.
    for path in sorted(chosen, key=lambda path: (chosen.index(path) % 4, chosen.index(path))):
        text = cut(read(path, reader), min(from_each, wanted - size))
        if len(text) < 200:
            continue
        stem = re.sub(r"[^a-zA-Z0-9]+", "-", f"{package}-{path.name.removesuffix('.gz')}")[:80]
        size += write_documents(out / corpus / kind, f"{stem}-{len(used):02}", text)
        used.append(path.relative_to((root / package).resolve()).as_posix())
        if size >= wanted * 0.97:
            break
    return size, used


def take_setmm(root, out, wanted=2_600_000):
    """Evenly spaced stretches of set.mm, cut where a comment opens: each a run of theorems with their proofs."""
    text = (root / "metamath-databases" / SETMM).read_text("utf-8", "replace")
    start = text.index("$( Declare the primitive constant symbols")
    count = wanted // DOCUMENT_BYTES
    step = (len(text) - start) // count
    folder = out / "setmm"
    folder.mkdir(parents=True)
    size = 0
    for number in range(count):
        begin = text.find("\n\n", start + number * step) + 2
        end = text.find("\n\n", begin + DOCUMENT_BYTES)
        piece = text[begin:end if 0 <= end < begin + 2 * DOCUMENT_BYTES else begin + DOCUMENT_BYTES] + "\n"
        (folder / f"set-mm-{number:03}.txt").write_text(piece, encoding="utf-8")
        size += len(piece.encode())
    return size, [SETMM]


def take_services(wheel, out, wanted=3_000_000, from_each=20_000):
    """A stretch of each of many services' descriptions: of every other one the beginning, else the middle."""
    folder = out / "services"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(wheel) as archive:
        latest = {name.split("/")[2]: name for name in sorted(archive.namelist())
                  if re.fullmatch(r"botocore/data/[^/]+/[^/]+/service-2\.json(\.gz)?", name)}
        names = spread(sorted(latest.values()), wanted // from_each)
        size = 0
        for number, name in enumerate(names):
            data = archive.read(name)
            text = (gzip.decompress(data) if name.endswith(".gz") else data).decode()
            if number % 2:
                piece = cut(text, from_each)
            else:
                piece = text[:text.rfind("\n", 0, from_each) + 1] if len(text) > from_each else text
            (folder / f"{name.split('/')[2]}.txt").write_text(piece, encoding="utf-8")
            size += len(piece.encode())
    return size, names


def main():
    deps = Path(sys.argv[1]).resolve()
    sources, final = deps / "corpora-src", deps / "corpora"
    out = deps / "corpora.new"
    shutil.rmtree(out, ignore_errors=True)
    patterns = {"metamath-databases": [SETMM]}
    for source in SOURCES:
        patterns.setdefault(source[2], []).append(source[3])
    packages = fetch_packages(patterns, sources / "debian")
    listed = []

    def note(corpus, kind, package, version, sha256, size, files):
        listed.append({"corpus": corpus, "kind": kind, "package": package, "version": version, "sha256": sha256,
                       "licence": LICENCES[package], "bytes": size, "files": files})

    for source in SOURCES:
        note(*source[:3], *packages[source[2]], *take(sources / "debian", out, source))
    note("setmm", "mathematics", "metamath-databases", *packages["metamath-databases"],
         *take_setmm(sources / "debian", out))
    wheel = next(sources.glob("botocore-*.whl"))
    note("services", "json", "botocore", wheel.name.split("-")[1], digest(wheel), *take_services(wheel, out))
    (out / "SOURCES.json").write_text(json.dumps(listed, indent=2) + "\n")

    shutil.rmtree(final, ignore_errors=True)
    out.rename(final)
    for corpus in ("calibration", "general", "setmm", "services", "python", "french", "characters"):
        kinds = sorted({one["kind"] for one in listed if one["corpus"] == corpus})
        size = sum(one["bytes"] for one in listed if one["corpus"] == corpus)
        count = sum(1 for path in (final / corpus).rglob("*.txt"))
        print(f"{corpus}: {size / 1e6:.2f} MB in {count} files; {', '.join(kinds)}", file=sys.stderr)


if __name__ == "__main__":
    main()
