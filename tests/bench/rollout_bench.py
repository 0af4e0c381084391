"""Rollout throughput of moebius against transformers' generate: one file of prompts and answer lengths, 2 threads each.

    /opt/torch/bin/python tests/bench/rollout_bench.py MOEBIUS MODEL [ANSWERS]

ANSWERS (default 96) answers of 4 to 96 tokens to prompts of 16 to 64, eight to a prompt, sampled at temperature 1 without
stop tokens. Only the tokens that were asked for count: a batch of transformers runs until its longest answer is done.
"""

import json
import random
import re
import subprocess
import sys
import tempfile
import time

import torch
from transformers import AutoModelForCausalLM

moebius, model = sys.argv[1:3]
answers = int(sys.argv[3]) if len(sys.argv) > 3 else 96
rng = random.Random(7)
items = []
for _ in range(answers // 8):
    prompt = [rng.randrange(1000, 40000) for _ in range(rng.randint(16, 64))]
    items += [(prompt, min(96, max(4, int(rng.expovariate(1 / 24))))) for _ in range(8)]
useful = sum(n for _, n in items)

with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
    for prompt, n in items:
        file.write(json.dumps({"ids": prompt, "max_new": n}) + "\n")
    file.flush()
    done = subprocess.run([moebius, "generate", model, "--batch", file.name, "--ignore-eos", "--stats", "--threads", "2",
                           "--batch-size", "64", "--compute", "fp32"], check=True, capture_output=True, text=True)
assert sum(len(json.loads(line)["ids"]) for line in done.stdout.splitlines()) == useful
ours = float(re.search(r"tokens in ([0-9.]+) s", done.stderr)[1])

torch.set_num_threads(2)
hf = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
pad = 0
theirs = float("inf")
for order in ("as they come", "sorted by length"):
    todo = sorted(items, key=lambda item: item[1]) if order == "sorted by length" else items
    begin = time.monotonic()
    for at in range(0, len(todo), 64):
        batch = todo[at:at + 64]
        width, longest = max(len(p) for p, _ in batch), max(n for _, n in batch)
        ids = torch.tensor([[pad] * (width - len(p)) + p for p, _ in batch])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p, _ in batch])
        with torch.no_grad():
            hf.generate(ids, attention_mask=mask, do_sample=True, temperature=1.0, top_k=0, max_new_tokens=longest,
                        min_new_tokens=longest, pad_token_id=pad)
    seconds = time.monotonic() - begin
    print(f"transformers, {order}: {useful / seconds:.1f} useful tokens/s", flush=True)
    theirs = min(theirs, seconds)
print(f"moebius: {useful / ours:.1f} useful tokens/s ({useful} tokens in {ours:.1f} s)")
print(f"{theirs / ours:.2f} times the better of them")
