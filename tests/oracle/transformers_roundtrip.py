#!/usr/bin/env python3
"""Checkpoints of ours through transformers: every golden model is trained a few steps by moebius, exported, loaded by
transformers as it lies and scored by both; the import of the export is compared byte by byte.
Usage: PYTHON_WITH_TRANSFORMERS transformers_roundtrip.py MOEBIUS GOLDEN_MODELS [MORE_CHECKPOINTS...]"""
import filecmp
import json
import os
import subprocess
import sys
import tempfile

import torch
from transformers import AutoModelForCausalLM

moebius, golden, more = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), sys.argv[3:]
worst_of_all, failures = 0.0, 0


def run(*args):
    done = subprocess.run([moebius, *args], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"moebius {' '.join(args)}: exit {done.returncode}: {done.stderr}")
    return done.stdout


def transformers_scores(folder, sequences):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    out = []
    with torch.no_grad():
        for ids in sequences:
            logits = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            out.append([logits[i, ids[i + 1]].item() for i in range(len(ids) - 1)])
    return out


def compare(name, checkpoint, sequences, work):
    global worst_of_all, failures
    exported, imported = f"{work}/{name}-exported", f"{work}/{name}-imported"
    run("export", checkpoint, exported)
    run("import", exported, imported)
    weights = sorted(f for f in os.listdir(exported) if f.startswith("model"))
    same = all(filecmp.cmp(f"{exported}/{f}", f"{imported}/{f}", shallow=False) for f in weights + ["config.json"])
    back = f"{work}/{name}-back"
    run("export", imported, back)
    same = same and all(filecmp.cmp(f"{exported}/{f}", f"{back}/{f}", shallow=False) for f in weights)
    tokens = f"{work}/{name}.jsonl"
    with open(tokens, "w") as f:
        f.writelines(json.dumps({"ids": ids}) + "\n" for ids in sequences)
    ours = [json.loads(line)["logprobs"] for line in run("score", exported, "--tokens", tokens).splitlines()]
    theirs = transformers_scores(exported, sequences)
    worst = max(abs(a - b) for x, y in zip(ours, theirs) for a, b in zip(x, y))
    worst_of_all = max(worst_of_all, worst)
    failures += (worst > 2e-4) + (not same)
    print(f"{name:24} transformers and moebius differ by {worst:.1e} at most; import of the export "
          f"{'is byte-identical' if same else 'DIFFERS'}", flush=True)


with tempfile.TemporaryDirectory() as work:
    for name in sorted(os.listdir(golden)):
        folder = f"{golden}/{name}"
        sequences = [json.loads(line)["ids"] for line in open(f"{folder}/score_input.jsonl")]
        compare(name, f"{folder}/model", sequences, work)
    for number, checkpoint in enumerate(more):
        vocab = json.load(open(f"{checkpoint}/config.json"))["vocab_size"]
        sequences = [[(7 * i * i + 13 * i + k) % vocab for i in range(60)] for k in range(3)]
        compare(f"checkpoint-{number}", checkpoint, sequences, work)
print(f"worst difference {worst_of_all:.1e}, {failures} failures")
sys.exit(1 if failures else 0)
