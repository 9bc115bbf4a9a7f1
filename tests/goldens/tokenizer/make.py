#!/usr/bin/env python3
"""Makes the tokenizer goldens of this folder with Hugging Face's `tokenizers`, the reference.

    python make.py SmolLM2-135M-Instruct.Q4_1.gguf      (needs: pip install tokenizers==0.23.3 gguf==0.19.0)

Writes   strings.jsonl        {"kind", "text", "special"}, one a line; special: special tokens are parsed
         small.tokenizer.json a GPT-2-type tokenizer trained here, with one added token of each sort
         small.ids.jsonl      its ids, a line a string
         smollm2.ids.jsonl    SmolLM2's ids, with the vocabulary and merges in the GGUF file
         llama3.tokenizer.json, llama3.ids.jsonl   a Llama-3-type tokenizer trained here, and its ids
         qwen2.tokenizer.json, qwen2.ids.jsonl     a Qwen2-type one, which composes (NFC), and its ids

Everything follows from the seed below: a second run writes the same bytes. SmolLM2's vocabulary lacks 21 bytes, which
the reference drops and Tenon keeps (host/formats/tokenizer.hpp); no string holds one of them.
"""
import json
import pathlib
import random
import sys
import unicodedata

from gguf import GGUFReader
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors,
                        trainers)

HERE = pathlib.Path(__file__).parent
SEED = 20250207
PER_SCRIPT = 90

# A few sentences of everyday text a script (the first article of the Universal Declaration of Human Rights where one
# was at hand), and the blocks from which random words are drawn.
SCRIPTS = {
    "latin": ("All human beings are born free and equal in dignity and rights. Être né libre, c'est déjà ça ; n'est-ce "
              "pas? Größe, Straße, ÆØÅ æøå, naïve façade, piñata, İstanbul'da ılık, łódź, Tiếng Việt có dấu.",
              [(0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F), (0x1E00, 0x1EFF)]),
    "cyrillic": ("Все люди рождаются свободными и равными в своём достоинстве и правах. Її їжак їсть ґанок. Ђорђе.",
                 [(0x400, 0x52F)]),
    "greek": ("Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια. Ἐν ἀρχῇ ἦν ὁ λόγος.",
              [(0x370, 0x3FF), (0x1F00, 0x1FFF)]),
    "hebrew": ("כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם. בְּרֵאשִׁית בָּרָא אֱלֹהִים׃", [(0x591, 0x5F4)]),
    "arabic": ("يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق، وقد وهبوا عقلًا. همهٔ افراد؛ پاکستان، چای.",
               [(0x620, 0x64A), (0x64B, 0x65F), (0x671, 0x6D3)]),
    "devanagari": ("सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। क्षत्रिय ज्ञान।",
                   [(0x900, 0x963)]),
    "bengali": ("সমস্ত মানুষ স্বাধীনভাবে সমান মর্যাদা এবং অধিকার নিয়ে জন্মগ্রহণ করে।", [(0x980, 0x9E3)]),
    "tamil": ("மனிதப் பிறிவியினர் சகலரும் சுதந்திரமாகவே பிறக்கின்றனர்.", [(0xB82, 0xBCD)]),
    "thai": ("มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ", [(0xE01, 0xE3A), (0xE40, 0xE4E)]),
    "georgian": ("ყველა ადამიანი იბადება თავისუფალი და თანასწორი თავისი ღირსებითა და უფლებებით.", [(0x10D0, 0x10FF)]),
    "armenian": ("Բոլոր մարդիկ ծնվում են ազատ ու հավասար՝ իրենց արժանապատվությամբ։", [(0x531, 0x556), (0x561, 0x587)]),
    "ethiopic": ("የሰው ልጅ ሁሉ ሲወለድ ነጻና በክብርና በመብትም እኩልነት ያለው ነው።", [(0x1200, 0x1357)]),
    "hangul": ("모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 한글과 컴퓨터, ㅋㅋㅋ!", [(0xAC00, 0xD7A3)]),
    "han": ("人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。繁體字與簡體字。",
            [(0x4E00, 0x9FA5), (0x20000, 0x2A6D6)]),
    "kana": ("すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。コンピューター・ｶﾀｶﾅ。",
             [(0x3041, 0x3096), (0x30A1, 0x30FA)]),
    "khmer": ("មនុស្សទាំងអស់ កើតមកមានសេរីភាព និងសមភាព។", [(0x1780, 0x17D3)]),
}
PUNCTUATION = list(".,;:!?-…–—\"'()[]{}/\\@#$%^&*_+=|<>~`«»“”‘’„¿¡§©®™°±×÷€£¥₹。、，！？「」")
# White_Space, every character of it.
SPACES = [chr(c) for c in [*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F,
                           0x205F, 0x3000]]
NEARLY_SPACES = ["\u200b", "\u180e", "\u2060", "\ufeff", "\u200c", "\u200d", "\x1c", "\x1e", "\x1f"]
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'T", "'RE", "'Ll", "’s", "’re", "'", "''", "'x"]
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<reponame>", "<file_sep>", "<mask>", "[user]",
            "[user]s", "<|im_start", "<|", "|>", "<|im_start|><|im_end|>"]


def word(rng, ranges, length):
    """Letters and marks of the blocks, assigned characters only."""
    out = []
    while len(out) < length:
        low, high = rng.choice(ranges)
        c = chr(rng.randint(low, high))
        if unicodedata.category(c)[0] in "LM":
            out.append(c)
    return "".join(out)


def sentence(rng, ranges):
    parts = []
    for _ in range(rng.randint(1, 9)):
        parts.append(word(rng, ranges, rng.randint(1, 8)))
        roll = rng.random()
        if roll < 0.15:
            parts.append(rng.choice(PUNCTUATION))
        if roll > 0.9:
            parts.append(str(rng.randint(0, 99999)))
        parts.append(rng.choice(["", " ", " ", " ", "  ", "\n", " '"]))
    return "".join(parts)


def script_strings(rng):
    for kind, (text, ranges) in SCRIPTS.items():
        words = text.split(" ")
        yield kind, text
        for i in range(PER_SCRIPT - 1):
            if i % 3 == 0:
                start = rng.randrange(len(words))
                yield kind, " ".join(words[start:start + rng.randint(1, 6)])
            elif i % 3 == 1:
                yield kind, sentence(rng, ranges)
            else:
                start = rng.randrange(len(text))
                yield kind, text[start:start + rng.randint(1, 30)] + sentence(rng, ranges)


def code_strings(rng):
    name = lambda: "".join(rng.choice("abcdefgxyz_ABCXYZ0123456789") for _ in range(rng.randint(1, 12)))
    forms = [
        lambda: f"def {name()}(self, {name()}: int = {rng.randint(0, 10**6)}) -> None:\n{' ' * 4 * rng.randint(1, 4)}"
                f"return self.{name()}[{rng.randint(-9, 9)}:]  # {name()}\n",
        lambda: f"#include <{name()}.h>\n\nint main(void) {{\n\tprintf(\"%d\\n\", {name()}->{name()} << {rng.randint(0, 63)});\n}}\n",
        lambda: json.dumps({name(): [rng.random(), None, {name(): "\u00e9\n"}]}, indent=rng.choice([None, 1, 2, 4])),
        lambda: f"<div class=\"{name()} {name()}\"><a href='https://{name()}.org/{name()}?q={name()}&amp;x=%20'>{name()}</a></div>",
        lambda: f"$ grep -rn '{name()}' ./{name()} | awk '{{print $1}}' | sort -u > /tmp/{name()}.txt && echo $?",
        lambda: f"SELECT {name()}, COUNT(*) FROM {name()} WHERE {name()} >= {rng.random():.6f} GROUP BY 1;\r\n",
        lambda: f"|- ( ( {name()} -> {name()} ) -> ( -. {name()} \\/ {name()} ) ) $= ( wi {name()} $) $.",
        lambda: "\t" * rng.randint(0, 6) + f"if (!{name()}) {{ throw new {name()}(`${{{name()}}}`); }} // don't\n",
        lambda: f"fn {name()}<'a, T: Into<{name()}>>(x: &'a mut [u{2 ** rng.randint(3, 7)}]) -> Option<&'a T> {{ x?.y }}",
    ]
    for i in range(270):
        yield "code", "".join(forms[(i + j) % len(forms)]() for j in range(rng.randint(1, 3)))


def emoji_strings(rng):
    people, tones = ["👩", "👨", "🧑", "👧", "👦"], ["", "🏻", "🏽", "🏿"]
    things = ["💻", "🔬", "🚀", "🍳", "🎨", "❤️", "⚕️", "✈️"]
    forms = [
        lambda: rng.choice(people) + rng.choice(tones) + "\u200d" + rng.choice(things),
        lambda: "\u200d".join(rng.choice(people) for _ in range(rng.randint(2, 4))),
        lambda: "".join(chr(0x1F1E6 + rng.randrange(26)) for _ in range(2)),
        lambda: rng.choice("0123456789#*") + "\ufe0f\u20e3",
        lambda: "".join(chr(rng.randint(0x1F300, 0x1F64F)) for _ in range(rng.randint(1, 6))),
        lambda: "🏴" + "".join(chr(0xE0000 + ord(c)) for c in "gbsct") + "\U000e007f",
        lambda: "👍" + rng.choice(tones) + rng.choice(["", " ", "!", "\ufe0f"]),
    ]
    for i in range(140):
        yield "emoji", rng.choice(["", " ", "ok ", "see:"]) + "".join(
            forms[(i + j) % len(forms)]() + rng.choice(["", " "]) for j in range(rng.randint(1, 4)))


def mark_strings(rng):
    for _ in range(110):
        text = "".join(rng.choice("abcdeinosuyAEOU ") + "".join(chr(rng.randint(0x300, 0x36F))
                       for _ in range(rng.choice([0, 1, 1, 2, 5]))) for _ in range(rng.randint(1, 14)))
        yield "marks", text
    for text, _ in SCRIPTS.values():
        yield "marks", unicodedata.normalize("NFD", text)


def space_strings(rng):
    for _ in range(150):
        yield "spaces", "".join(rng.choice([" " * rng.randint(1, 20), "\n" * rng.randint(1, 4), "\t", "\r\n",
                                            rng.choice(SPACES), rng.choice(NEARLY_SPACES), "a", "word", "7", "!",
                                            "é", "人"]) for _ in range(rng.randint(1, 12)))
    for space in SPACES + NEARLY_SPACES:
        yield "spaces", f"a{space}b{space}{space}1{space} {space}c {space}"


def digit_strings(rng):
    numerals = [chr(c) for c in range(0x20000) if unicodedata.category(chr(c))[0] == "N"]
    for _ in range(150):
        yield "digits", "".join(rng.choice([str(rng.randint(0, 10 ** rng.randint(1, 15))), f"{rng.random():.8f}",
                                            rng.choice(numerals), " ", "  ", "a", "x2", ",", "-", "0x7F", "1e-9"])
                                for _ in range(rng.randint(1, 10)))


def contraction_strings(rng):
    for _ in range(110):
        yield "contractions", "".join(rng.choice(["I", "you", "they", "don", "it", "Été", "он", "人", "9", " ", "", "\n"])
                                      + rng.choice(CONTRACTIONS) + rng.choice(["", " ", "  ", "x"])
                                      for _ in range(rng.randint(1, 7)))


def any_strings(rng):
    """Any assigned character, of any plane."""
    for _ in range(200):
        out = []
        while len(out) < rng.randint(1, 24):
            c = chr(rng.choice([rng.randint(0, 0x2FFF), rng.randint(0, 0xFFFF), rng.randint(0, 0x3FFFF)]))
            if unicodedata.category(c) not in ("Cn", "Cs", "Co"):
                out.append(c)
        yield "any", "".join(out)


def long_strings(rng):
    yield "long", ""
    for unit in ["a", "ab", " ", "\n", "9", "é", "人", "👍", "the", "=", "_-", "абв", "\u0301"]:
        yield "long", unit * rng.randint(100, 300)
        yield "long", "x" + unit * rng.randint(30, 40) + "y"


def special_strings(rng):
    for _ in range(100):
        text = "".join(rng.choice(SPECIALS) + rng.choice(["", " ", "\n", "  ", "user\n", "é", "3"])
                       for _ in range(rng.randint(1, 6)))
        yield "special", text
    yield "special", "<|im_start|>system\nYou are a helpful AI assistant.<|im_end|>\n<|im_start|>user\nHi!<|im_end|>\n"


def all_strings(lacking):
    rng = random.Random(SEED)
    seen = set()
    for make in (script_strings, code_strings, emoji_strings, mark_strings, space_strings, digit_strings,
                 contraction_strings, any_strings, long_strings, special_strings):
        for kind, text in make(rng):
            if text in seen or any(byte in lacking for byte in text.encode()):
                continue
            seen.add(text)
            yield {"kind": kind, "text": text, "special": False}
            if kind == "special":
                yield {"kind": kind, "text": text, "special": True}


def smollm2(path):
    """As Hugging Face's tokenizer.json of SmolLM2 has it: each digit alone, then GPT-2's pattern."""
    fields = GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    made = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                  pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, kind in zip(tokens, types) if kind == 3])
    lacking = {byte for byte, symbol in byte_symbols().items() if symbol not in set(tokens)}
    return made, lacking


def byte_symbols():
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in own]
    return {byte: chr(byte) for byte in own} | {byte: chr(0x100 + i) for i, byte in enumerate(others)}


def small(strings):
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=1500, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
                                  special_tokens=["<|endoftext|>"], show_progress=False)
    made.train_from_iterator([s["text"] for s in strings if s["kind"] not in ("any", "long", "special")], trainer)
    made.add_special_tokens([AddedToken("<|im_start|>", special=True, normalized=False),
                             AddedToken("<|im_end|>", special=True, normalized=False, rstrip=True),
                             AddedToken("<mask>", special=True, normalized=False, lstrip=True)])
    made.add_tokens([AddedToken("[user]", normalized=True), AddedToken("[user]s", normalized=True, rstrip=True)])
    return made


# As Qwen2's tokenizer.json has it; Llama 3's takes up to three numerals together.
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|"
         r"\s+")
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


def modern(strings, pattern, llama):
    """The parts of Llama 3's and Qwen2's tokenizer.json, over a small vocabulary."""
    made = Tokenizer(models.BPE(ignore_merges=llama))
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    if not llama:
        made.normalizer = normalizers.NFC()
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=1000, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
                                  show_progress=False)
    made.train_from_iterator([s["text"] for s in strings if s["kind"] not in ("any", "long", "special")], trainer)
    names = ["<|begin_of_text|>", "<|eot_id|>"] if llama else []
    made.add_special_tokens([AddedToken(name, special=True, normalized=False)
                             for name in ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *names]])
    level = processors.ByteLevel(trim_offsets=False)
    made.post_processor = level if not llama else processors.Sequence([level, processors.TemplateProcessing(
        single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|> $B",
        special_tokens=[("<|begin_of_text|>", made.token_to_id("<|begin_of_text|>"))])])
    return made


def ids_of(tokenizer, string):
    tokenizer.encode_special_tokens = not string["special"]
    return tokenizer.encode(string["text"], add_special_tokens=False).ids


def write_lines(name, values):
    with open(HERE / name, "w", encoding="utf-8") as out:
        for value in values:
            out.write(json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n")


def main():
    reference, lacking = smollm2(sys.argv[1])
    strings = list(all_strings(lacking))
    tiny = small(strings)
    tiny.save(str(HERE / "small.tokenizer.json"))
    write_lines("strings.jsonl", strings)
    write_lines("smollm2.ids.jsonl", (ids_of(reference, s) for s in strings))
    write_lines("small.ids.jsonl", (ids_of(tiny, s) for s in strings))
    for name, pattern in (("llama3", LLAMA3), ("qwen2", QWEN2)):
        trained = modern(strings, pattern, name == "llama3")
        trained.save(str(HERE / f"{name}.tokenizer.json"), pretty=False)
        write_lines(f"{name}.ids.jsonl", (ids_of(trained, s) for s in strings))
    print(len(strings), "strings,", len({s["kind"] for s in strings}), "kinds")


if __name__ == "__main__":
    main()
