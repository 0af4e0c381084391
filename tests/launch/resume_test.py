#!/usr/bin/env python3
"""Runs of `moebius train` that are killed, stopped or changed end as the contract says. Usage: resume_test.py MOEBIUS"""
import glob
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

moebius = os.path.abspath(sys.argv[1])
failures = []
RECIPE = """
name: "resume" task: PRETRAIN seed: 3
model {
  model_type: "deepseek_v3" vocab_size: 300 hidden_size: 32 intermediate_size: 64 moe_intermediate_size: 16
  num_hidden_layers: 2 num_attention_heads: 2 n_shared_experts: 1 n_routed_experts: 8 num_experts_per_tok: 2
  n_group: 2 topk_group: 1 first_k_dense_replace: 1 kv_lora_rank: 16 q_lora_rank: 16 qk_rope_head_dim: 8
  qk_nope_head_dim: 8 v_head_dim: 8 num_nextn_predict_layers: 1 max_position_embeddings: 64
}
data { train: "data/train.h5" validation: "data/val.h5" shuffle: true }
batch { sequences: 4 sequence_length: 32 microbatch_sequences: 2 ramp { at_step: 20 to_sequences: 6 } }
steps: 60
optimizer { lr: 3e-3 schedule: COSINE warmup_steps: 5 }
validate { every_steps: 10 max_tokens: 256 }
checkpoint { every_steps: 3 keep: 2 }
log { every_steps: 20 }
threads: 2
"""


def check(condition, text):
    print(("ok    " if condition else "FAIL  ") + text, flush=True)
    if not condition:
        failures.append(text)


def train(out, *extra, **kwargs):
    return subprocess.run([moebius, "train", "r.textproto", "--out", out, *extra], capture_output=True, text=True,
                          timeout=300, **kwargs)


def final_bytes(out, step=60):
    folder = f"{out}/checkpoints/step-{step:08d}"
    names = sorted(n for n in os.listdir(folder) if n.endswith(".safetensors"))
    return {n: open(f"{folder}/{n}", "rb").read() for n in names}


def metrics(out):
    rows = [json.loads(line) for line in open(f"{out}/metrics.jsonl")]
    timed = ("time_s", "perf/tokens_per_s", "perf/step_s", "perf/mfu", "mem/peak_bytes")
    return [{k: v for k, v in row.items() if k not in timed} for row in rows]


def main():
    text = "".join(f"Sentence {i} says {'xyzab'[i % 5] * (i % 7 + 1)} and no more. " for i in range(1500))
    os.makedirs("text")
    for k in range(4):
        open(f"text/{k}.txt", "w").write(text[k * 9000:(k + 1) * 9000])
    built = subprocess.run([moebius, "data", "build", "--text", "text", "--held-out", "text/3.txt", "--vocab-size",
                            "300", "--out", "data"], capture_output=True, text=True)
    check(built.returncode == 0, f"data build: {built.stderr.strip()}")
    open("r.textproto", "w").write(RECIPE)

    whole = train("whole")
    check(whole.returncode == 0, f"an undisturbed run ends with 0 {whole.stderr.strip()}")
    want, want_metrics = final_bytes("whole"), metrics("whole")
    check(len(want) == 2 and len(want_metrics) == 60, "it leaves weights, optimizer state and 60 rows of metrics")

    # Shares of the peak, from what the environment says that they are of.
    basis = json.load(open("whole/environment.json"))["perf/mfu_basis"]
    peak = float(re.match(r"(\d+) GFLOP/s", basis).group(1))
    flops = float(re.search(r"FLOPs of (\S+) GFLOP a token", basis).group(1))
    counted = float(re.search(r"(\S+) GFLOP a token trained", train("dry", "--dry-run").stdout).group(1))
    check(abs(counted / flops - 1) < 1e-3, f"of the FLOPs that --dry-run counts: {counted}, {flops}")
    timed = [json.loads(line) for line in open("whole/metrics.jsonl")]
    for row, before in zip(timed, [{"tokens": 0}] + timed):
        speed = (row["tokens"] - before["tokens"]) / row["perf/step_s"]
        if abs(row["perf/tokens_per_s"] / speed - 1) > 1e-6 or not (
                speed * flops / (peak + 1) <= row["perf/mfu"] <= speed * flops / peak * (1 + 1e-6)):
            check(False, f"tokens a second and MFU: {row} of {basis}")
    check(len(timed) == 60, "MFU of every step")

    # kill -9 at random moments until the run is through.
    rng = random.Random(11)
    kills = 0
    start = time.time()
    while kills < 20 and time.time() - start < 240:
        process = subprocess.Popen([moebius, "train", "r.textproto", "--out", "killed"], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE)
        delay = rng.uniform(0.05, 0.6)
        try:
            _, err = process.communicate(timeout=delay)
            check(process.returncode == 0, f"a run that was not killed ends with 0 {err}")
            # Done before twenty kills: start over and go on killing.
            check(final_bytes("killed") == want, f"byte-equal after {kills} kills")
            shutil.rmtree("killed")
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    last = train("killed")
    check(last.returncode == 0, f"after {kills} kills the run ends with 0 {last.stderr.strip()}")
    check(kills >= 20, f"{kills} kills happened")
    check(final_bytes("killed") == want, "weights and moments are byte-equal to the undisturbed run")
    got = metrics("killed")
    odd = next(((a, b) for a, b in zip(got, want_metrics) if a != b), (len(got), len(want_metrics)))
    check(got == want_metrics, f"metrics are those of the undisturbed run, none twice {'' if got == want_metrics else odd}")

    # TensorBoard has the steps that metrics.jsonl has, but for one that the kill fell into.
    process = subprocess.Popen([moebius, "train", "r.textproto", "--out", "seen"], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    while not glob.glob("seen/checkpoints/step-*") and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    check(process.wait() == -signal.SIGKILL, "killed after a checkpoint")
    rows = open("seen/metrics.jsonl", "rb").read().count(b"train/loss")
    shown = sum(open(path, "rb").read().count(b"train/loss") for path in glob.glob("seen/tensorboard/*"))
    check(rows > 1 and shown >= rows - 1, f"TensorBoard has {shown} of {rows} steps")

    # Stop politely, go on.
    process = subprocess.Popen([moebius, "train", "r.textproto", "--out", "stopped"], stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True)
    while not glob.glob("stopped/checkpoints/step-*") and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    check(process.returncode == 75 and "run the same command again" in err, f"SIGTERM: exit {process.returncode} {err}")
    again = train("stopped")
    check(again.returncode == 0 and final_bytes("stopped") == want, "the same command again ends byte-equal")

    # A wall-time limit, a longer run, a changed recipe.
    limited = train("limited", "--set", "max_minutes=0.0001")
    check(limited.returncode == 75, f"max_minutes: exit {limited.returncode}")
    refused = train("whole", "--set", "optimizer.lr=1e-4")
    check(refused.returncode == 64 and "optimizer.lr" in refused.stderr, f"a changed recipe: {refused.stderr.strip()}")
    longer = train("whole", "--set", "steps=63", "--set", "optimizer.decay_steps=0")
    check(longer.returncode == 0, f"more steps are accepted {longer.stderr.strip()}")

    # Texts built anew with as many tokens, but others: two sentences have changed places.
    sentences = open("text/1.txt").read().split("Sentence ")
    sentences[50], sentences[51] = sentences[51], sentences[50]
    os.rename("text", "text-0")
    shutil.copytree("text-0", "text")
    open("text/1.txt", "w").write("Sentence ".join(sentences))
    os.rename("data", "data-0")
    built = subprocess.run([moebius, "data", "build", "--text", "text", "--held-out", "text/3.txt", "--tokenizer",
                            "data-0/tokenizer.json", "--out", "data"], capture_output=True, text=True)
    tokens = [json.load(open(f"{folder}/manifest.json"))["outputs"]["train.h5"] for folder in ("data-0", "data")]
    check(built.returncode == 0 and tokens[0]["bytes"] == tokens[1]["bytes"], f"built anew: {tokens} {built.stderr}")
    other = train("whole", "--set", "steps=64", "--set", "optimizer.decay_steps=0")
    check(other.returncode == 64 and "other tokens now" in other.stderr, f"texts built anew: {other.stderr.strip()}")
    shutil.rmtree("data")
    os.rename("data-0", "data")

    # A fork goes on from another run's state.
    forked = train("forked", "--set", "fork.from=whole", "--set", "fork.step=60", "--set", "steps=62")
    check(forked.returncode == 0 and metrics("forked")[0]["step"] == 61, f"a fork starts at step 61 {forked.stderr.strip()}")

    # Bad numbers.
    bad = train("bad", "--set", "optimizer.lr=100", "--set", "optimizer.weight_decay=1", "--set", "max_bad_steps=3",
                "--set", "optimizer.warmup_steps=0")
    check(bad.returncode == 76, f"divergence: exit {bad.returncode} {bad.stderr.strip()}")
    good = re.search(r"--set fork.from=bad --set fork.step=(\d+)", bad.stderr)
    check(good is not None and os.path.isdir(f"bad/checkpoints/step-{int(good[1]):08d}"),
          f"the last good checkpoint is kept and named: {bad.stderr.strip()}")
    fork = train("good", "--set", "fork.from=bad", "--set", f"fork.step={good[1]}", "--set", "optimizer.lr=1e-5")
    check(fork.returncode == 0, f"and goes on: {fork.stderr.strip()}")
    nothing = train("nothing", "--set", "fork.from=good")
    check(nothing.returncode == 64 and "nothing is left" in nothing.stderr and not os.path.exists("nothing"),
          f"a fork of what is done: {nothing.returncode} {nothing.stderr.strip()}")

    # A damaged checkpoint is refused by name.
    latest = os.path.realpath("stopped/checkpoints/latest")
    with open(f"{latest}/model.safetensors", "r+b") as f:
        f.seek(5000)
        byte = f.read(1)
        f.seek(5000)
        f.write(bytes([byte[0] ^ 1]))
    damaged = train("stopped", "--set", "steps=63")
    check(damaged.returncode == 65 and "model.safetensors" in damaged.stderr, f"damage: {damaged.stderr.strip()}")


with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    main()
    os.chdir("/")
print(f"{len(failures)} failures")
sys.exit(1 if failures else 0)
