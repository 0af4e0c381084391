#!/usr/bin/env python3
"""Compares our tokenizer with Hugging Face `tokenizers` in one run, one thread each, pieces of 4 KB, processor time.

    tokenizer_bench.py --bench build/cpu/tests/tokenizer_bench [--moebius build/cpu/launch/moebius] \
        --tokenizer DIR/tokenizer.json... --text FILE...

Needs PyPI's tokenizers and the target tokenizer_bench. Prints the seconds of loading each tokenizer, encoding speeds and their ratio for every
tokenizer and text (the number of tokens must agree), then times on hostile text of growing length, and with --train N the time of training
N tokens."""
import argparse
import json
import os
import subprocess
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402

HOSTILE = {"letter a": "a", "blank": " ", "digit": "7", "line end": "\n", "combining mark": "\u0301", "CJK": "\u4e2d",
           "punctuation": "!", "random letters": None}


def ours(bench, tokenizer, text, piece_bytes, seconds=2):
    out = subprocess.run([bench, tokenizer, text, str(piece_bytes), str(seconds)], capture_output=True, text=True)
    if out.returncode:
        raise SystemExit(out.stderr)
    return json.loads(out.stdout)


def theirs(tokenizer, text, piece_bytes):
    data = open(text, "rb").read()
    pieces, begin = [], 0
    while begin < len(data):
        end = min(begin + piece_bytes, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1
        pieces.append(data[begin:end].decode())
        begin = end
    best, tokens = 1e30, 0
    for _ in range(2):
        start = time.process_time()
        tokens = sum(len(tokenizer.encode(piece, add_special_tokens=False).ids) for piece in pieces)
        best = min(best, time.process_time() - start)
    return {"tokens": tokens, "mb_per_s": len(data) / best / 1e6}


def hostile(args, path):
    print("\nhostile text, one piece, seconds (ours):")
    for name, char in HOSTILE.items():
        row = []
        for size in (1 << 16, 1 << 18, 1 << 20, 1 << 22):
            if char is None:
                state, letters = 1, []
                for _ in range(size):
                    state = state * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
                    letters.append(chr(97 + (state >> 33) % 26))
                text = "".join(letters)
            else:
                text = char * (size // len(char.encode()))
            with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                result = ours(args.bench, path, file.name, 1 << 40, 0)
            row.append("%d KB %.4f" % (size >> 10, result["bytes"] / result["mb_per_s"] / 1e6))
        print("  %-16s %s" % (name, ", ".join(row)))


def train(args):
    expressions = json.load(open(args.tokenizer[-1]))["pre_tokenizer"].get("pretokenizers", [])
    splits = [pre_tokenizers.Split(Regex(s["pattern"]["Regex"]), "isolated")
              for s in expressions if s["type"] == "Split"]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not splits)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits + [byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"]
    trainer = trainers.BpeTrainer(vocab_size=args.train, special_tokens=special, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "tokenizer.json")
        start = time.perf_counter()
        subprocess.run([args.moebius, "tokenizer", "train", "--vocab-size", str(args.train), "--out", out,
                        "--pre-tokenizer", "deepseek-v3" if splits else "gpt2", *args.text], check=True)
        our_s = time.perf_counter() - start
        os.environ["TOKENIZERS_PARALLELISM"] = "true"
        start = time.perf_counter()
        tokenizer.train_from_iterator([open(t, encoding="utf-8", newline="").read() for t in args.text], trainer)
        their_s = time.perf_counter() - start
        merges = [json.load(open(out))["model"]["merges"], json.loads(tokenizer.to_str())["model"]["merges"]]
    print("\ntrain %d tokens: ours %.2f s, HF %.2f s, ratio %.1f, same merges: %s" %
          (args.train, our_s, their_s, their_s / our_s, merges[0] == merges[1]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", required=True)
    parser.add_argument("--moebius")
    parser.add_argument("--tokenizer", nargs="+", required=True)
    parser.add_argument("--text", nargs="+", required=True)
    parser.add_argument("--piece-bytes", type=int, default=4096)
    parser.add_argument("--hostile", action="store_true")
    parser.add_argument("--train", type=int, default=0, help="also train this many tokens (needs --moebius)")
    args = parser.parse_args()
    for path in args.tokenizer:
        start = time.process_time()
        tokenizer = Tokenizer.from_file(path)
        their_load_s = time.process_time() - start
        our_load_s = min(ours(args.bench, path, args.text[0], args.piece_bytes, 0)["load_s"] for _ in range(3))
        print("%-45s ours %7.3f s, HF %6.3f s, ratio %.1f" %
              (os.path.basename(os.path.dirname(path)) + ", loading", our_load_s, their_load_s, their_load_s / our_load_s))
        for text in args.text:
            a, b = ours(args.bench, path, text, args.piece_bytes), theirs(tokenizer, text, args.piece_bytes)
            name = "%s %s" % (os.path.basename(os.path.dirname(path)), os.path.basename(text))
            print("%-45s ours %7.2f MB/s, HF %6.2f MB/s, ratio %.1f, tokens %d %s" %
                  (name, a["mb_per_s"], b["mb_per_s"], a["mb_per_s"] / b["mb_per_s"], a["tokens"],
                   "equal" if a["tokens"] == b["tokens"] else "DIFFER from %d" % b["tokens"]))
        if args.hostile:
            hostile(args, path)
    if args.train:
        train(args)


if __name__ == "__main__":
    main()
