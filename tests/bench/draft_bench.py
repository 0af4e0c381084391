#!/usr/bin/env python3
"""Speculative decoding against plain decoding: the same requests with and without --drafts, in turns.

    tests/bench/draft_bench.py MOEBIUS MODEL [ROUNDS]

MODEL has an MTP module. For batches of 1 and 16 and temperatures 0, 0.8 and 1: tokens/s of both (medians of ROUNDS, default
5), their ratio, and the share of drafts that were accepted. Answers of 200 tokens to one-word prompts, 2 threads.
"""
import re
import statistics
import subprocess
import sys

moebius, model = sys.argv[1:3]
rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
PROMPTS = ["It", "The", "When", "She", "There", "In", "He", "But", "And", "They", "Of", "For", "A", "My", "All", "Then"]


def run(batch, temperature, *flags):
    command = [moebius, "generate", model, "--json", "--ignore-eos", "--stats", "--threads", "2", "--max-new", "200",
               "--batch-size", str(batch), "--temperature", str(temperature), *flags]
    for prompt in PROMPTS[:4] if batch == 1 else PROMPTS:
        command += ["--prompt", prompt]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    accepted = re.search(r"\(([0-9.]+) %\)", done.stderr)
    return float(re.search(r"([0-9.]+) tokens/s", done.stderr)[1]), accepted and float(accepted[1]), done.stdout


print("batch temperature plain tokens/s  with drafts  ratio  accepted %  same texts")
for batch in (1, 16):
    for temperature in (0, 0.8, 1):
        plain, drafted = [], []
        for _ in range(rounds):
            plain.append(run(batch, temperature))
            drafted.append(run(batch, temperature, "--drafts"))
        before = statistics.median(speed for speed, _, _ in plain)
        after = statistics.median(speed for speed, _, _ in drafted)
        texts = [(a, b) for a, b in zip(plain[0][2].splitlines(), drafted[0][2].splitlines())]
        print(f"{batch:5} {temperature:11} {before:14.0f} {after:12.0f} {after / before:6.2f} {drafted[0][1]:11} "
              f"{sum(a == b for a, b in texts)} of {len(texts)}", flush=True)
