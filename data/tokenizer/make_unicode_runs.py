#!/usr/bin/env python3
"""Writes unicode_runs.cc: the character classes that Hugging Face `tokenizers` itself uses (asked of it, code
point by code point), so that our splits equal its splits whatever Unicode version the system's libraries have.
Usage: python make_unicode_runs.py > unicode_runs.cc   (needs PyPI's tokenizers)"""
import tokenizers
from tokenizers import Regex, pre_tokenizers

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def members(pattern):
    """The code points that `pattern` matches: those that Split("removed") removes."""
    split = pre_tokenizers.Split(Regex(pattern), "removed")
    found = set()
    for start in range(0, len(CODE_POINTS), 4096):
        block = CODE_POINTS[start:start + 4096]
        left = set()
        for piece, _ in split.pre_tokenize_str("".join(map(chr, block))):
            left.update(map(ord, piece))
        found.update(c for c in block if c not in left)
    return found


def digits():
    """What the Digits pre-tokenizer isolates (Rust's char::is_numeric, a newer Unicode than the expressions')."""
    split = pre_tokenizers.Digits(individual_digits=True)
    pieces = split.pre_tokenize_str("".join("a" + chr(c) for c in CODE_POINTS))
    return {ord(p) for p, _ in pieces if len(p) == 1 and p != "a"}


# Bits of CharClass in unicode_classes.h.
LETTER, MARK, NUMBER, PUNCTUATION, SYMBOL, SPACE, NEWLINE, CJK, DIGIT = (1 << i for i in range(9))
classes = [0] * 0x110000
for bit, found in [(LETTER, members(r"\p{L}")), (MARK, members(r"\p{M}")), (NUMBER, members(r"\p{N}")),
                   (PUNCTUATION, members(r"\p{P}")), (SYMBOL, members(r"\p{S}")), (SPACE, members(r"\s")),
                   (NEWLINE, members(r"[\r\n]")), (CJK, members("[一-龥\u3040-ゟ゠-ヿ]")), (DIGIT, digits())]:
    for c in found:
        classes[c] |= bit

runs = [c for c in range(0x110000) if c == 0 or classes[c] != classes[c - 1]]
words = ["0x%X" % (c << 9 | classes[c]) for c in runs]
print("// Made by make_unicode_runs.py with tokenizers %s; do not edit." % tokenizers.__version__)
print('#include "data/tokenizer/unicode_classes.h"\n')
print("namespace moebius {\n")
print("// clang-format off")
print("const uint32_t kUnicodeRuns[] = {")
line = "   "
for w in words:
    if len(line) + len(w) + 2 > 110:
        print(line)
        line = "   "
    line += " " + w + ","
print(line)
print("};\n// clang-format on")
print("const size_t kUnicodeRunsSize = sizeof(kUnicodeRuns) / sizeof(kUnicodeRuns[0]);\n")
print("}  // namespace moebius")
