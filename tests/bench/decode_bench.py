"""Decoding of a model with random weights: moebius against transformers' generate, in turns, 2 threads each.

    [INT8=1] /opt/torch/bin/python tests/bench/decode_bench.py GENERATE_BENCH MODEL [BATCH [TURNS]]

MODEL is a folder with the config.json of a DeepseekV3ForCausalLM. A turn runs PyTorch's product of 1024 cubed, moebius in
bf16, with INT8=1 with weights of 8 bits (the median of generate_bench's rounds), transformers in fp32 with its loop over experts, and moebius again: prompts
of 64 tokens, 32 new ones. The machine's speed changes while one looks on, so the ratio of a turn is what counts.
"""

import json
import statistics
import subprocess
import sys
import time

import torch
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

bench, model = sys.argv[1:3]
batch = int(sys.argv[3]) if len(sys.argv) > 3 else 64
turns = int(sys.argv[4]) if len(sys.argv) > 4 else 5
prompt, new = 64, 32

torch.set_num_threads(2)
torch.manual_seed(0)
hf = DeepseekV3ForCausalLM(DeepseekV3Config.from_pretrained(model)).eval()
hf.set_experts_implementation("eager")
ids = torch.randint(0, hf.config.vocab_size, (batch, prompt))


def theirs(count):
    began = time.time()
    with torch.no_grad():
        hf.generate(ids, attention_mask=torch.ones_like(ids), do_sample=True, pad_token_id=0, max_new_tokens=count,
                    min_new_tokens=count)
    return batch * count / (time.time() - began)


def ours():
    done = subprocess.run([bench, f"{model}/config.json", "bf16", str(batch), str(prompt), str(new)], check=True,
                          capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[0])["median_tokens_per_s"]


def product_peak(x=torch.randn(1024, 1024), y=torch.randn(1024, 1024)):
    best, end = 1e9, time.time() + 0.5
    while time.time() < end:
        began = time.time()
        x @ y
        best = min(best, time.time() - began)
    return 2 * 1024**3 / best / 1e9


theirs(4)
ratios = []
for _ in range(turns):
    peak, before = product_peak(), ours()
    other, after = theirs(new), ours()
    ratios.append((before + after) / 2 / other)
    print(f"product peak {peak:.0f} GFLOP/s; tokens/s: moebius {before:.1f} {after:.1f}, transformers {other:.1f}; "
          f"{ratios[-1]:.2f} times", flush=True)
print(f"median {statistics.median(ratios):.2f} times")
