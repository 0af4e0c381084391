#!/usr/bin/env python3
"""How much of the exchange does overlap hide? Two ranks as threads (expert 2, one pipeline rank), links throttled so that
tokens travel about as long as experts compute. Each round runs: no throttle, throttle without overlap (1f1b), throttle
with overlap (dualpipev). Usage: overlap_bench.py MOEBIUS MODEL_DIR TOKENS.h5 [GB_PER_S [ROUNDS]]"""
import json
import os
import subprocess
import sys
import tempfile

moebius, model, tokens = (os.path.abspath(a) for a in sys.argv[1:4])
bandwidth = float(sys.argv[4]) if len(sys.argv) > 4 else 0.2
rounds = int(sys.argv[5]) if len(sys.argv) > 5 else 2
RECIPE = f"""
name: "overlap" task: PRETRAIN seed: 1 steps: 3
init {{ from: "{model}" random: true }}
data {{ train: "{tokens}" }}
batch {{ sequences: 32 sequence_length: 256 microbatch_sequences: 1 }}
optimizer {{ lr: 1e-4 }}
precision {{ compute: FP32 }}
parallel {{ expert: 2 }}
"""


def step(schedule, gb_per_s):
    out = subprocess.run([moebius, "bench", "train", "r.textproto", "--ranks", "2", "--set", f"parallel.schedule={schedule}",
                          "--set", f"parallel.within_node.gigabytes_per_s={gb_per_s}"], capture_output=True, text=True)
    if out.returncode:
        sys.exit(out.stderr)
    return json.loads(out.stdout.splitlines()[-1])["step_s"]


with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    open("r.textproto", "w").write(RECIPE)
    best = {}
    for _ in range(rounds):
        for name, schedule, speed in (("free", "1f1b", 0), ("free, overlapping order", "dualpipev", 0),
                                      ("throttled", "1f1b", bandwidth), ("throttled, overlapped", "dualpipev", bandwidth)):
            best[name] = min(best.get(name, 1e9), step(schedule, speed))
            print(f"{name:26} {best[name]:.3f} s", flush=True)
    shown = best["throttled"] - best["free"]
    hidden = best["throttled"] - best["throttled, overlapped"]
    print(json.dumps({"exchange_s": round(shown, 3), "hidden_s": round(hidden, 3), "hidden": round(hidden / shown, 3),
                      "gb_per_s": bandwidth, **{k: round(v, 3) for k, v in best.items()}}))
