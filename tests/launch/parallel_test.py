#!/usr/bin/env python3
"""Runs of `moebius train` and `moebius verify` on several ranks give the bytes, figures and exit codes that the contract
promises, whether ranks are threads or processes. Usage: parallel_test.py MOEBIUS MPIRUN MOEBIUS_MPIRUN"""
import glob
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

moebius, mpirun, launcher = (os.path.abspath(path) for path in sys.argv[1:4])
MPI = [mpirun, "--oversubscribe", "--allow-run-as-root", "--quiet"]
failures = []
RECIPE = """
name: "ranks" task: PRETRAIN seed: 3
model {
  model_type: "deepseek_v3" vocab_size: 300 hidden_size: 32 intermediate_size: 48 moe_intermediate_size: 16
  num_hidden_layers: 4 num_attention_heads: 2 n_shared_experts: 1 n_routed_experts: 8 num_experts_per_tok: 2
  n_group: 2 topk_group: 1 first_k_dense_replace: 1 kv_lora_rank: 16 q_lora_rank: 16 qk_rope_head_dim: 8
  qk_nope_head_dim: 8 v_head_dim: 8 num_nextn_predict_layers: 1 max_position_embeddings: 64
}
data { train: "data/train.h5" validation: "data/val.h5" shuffle: true }
batch { sequences: 16 sequence_length: 16 microbatch_sequences: 1 }
steps: 10
optimizer { lr: 1e-3 ema_decay: 0.9 }
balance { bias_update_speed: 0.01 sequence_loss: 1e-3 }
mtp { loss_weight: 0.3 }
validate { every_steps: 5 max_tokens: 256 }
checkpoint { every_steps: 5 keep: 4 }
log { every_steps: 10 }
precision { compute: FP32 }
threads: 2
"""
# Reinforcement with experts: samples, rewards and updates on ranks that each hold a part of the model.
GRPO = """
name: "rewards" task: GRPO seed: 3
model {
  model_type: "deepseek_v3" hidden_size: 32 intermediate_size: 48 moe_intermediate_size: 16
  num_hidden_layers: 4 num_attention_heads: 2 n_shared_experts: 1 n_routed_experts: 8 num_experts_per_tok: 2
  n_group: 2 topk_group: 1 first_k_dense_replace: 1 kv_lora_rank: 16 q_lora_rank: 16 qk_rope_head_dim: 8
  qk_nope_head_dim: 8 v_head_dim: 8 max_position_embeddings: 64
}
tokenizer: "symbols:0123456789sort ="
problems { kind: "sort" sort_length: 3 }
reward { part { name: "dense" weight: 0.9 } part { name: "correct" weight: 0.1 } }
batch { sequences: 16 sequence_length: 16 }
steps: 4
optimizer { lr: 1e-3 }
rl { group_size: 8 max_new: 4 router_bias: MOVING routing_replay: ROLLOUT }
evaluate { problems: 40 samples: 4 }
precision { compute: FP32 }
threads: 2
"""
FOUR = {"pp 2 x ep 2, dualpipev": ["parallel.pipeline=2", "parallel.expert=2", "parallel.schedule=dualpipev"],
        "dp 2 x ep 2": ["parallel.expert=2"]}


def check(condition, text):
    print(("ok    " if condition else "FAIL  ") + text, flush=True)
    if not condition:
        failures.append(text)


def sets(fields):
    return [word for field in fields for word in ("--set", field)]


def run(command, timeout=180):
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def train(out, *extra, recipe="r.textproto", np=0):
    """np: processes under mpirun; 0: none, ranks are what --ranks says."""
    start = [*MPI, "-np", str(np)] if np else []
    return run([*start, moebius, "train", recipe, "--out", out, *extra])


def errors(result):
    """Error lines, without the rank and host that they may be tagged with."""
    return [line for line in result.stderr.splitlines() if "error:" in line]


# Wall time is the one thing in a checkpoint that differs from run to run: elapsed_s of trainer_state.json, and with it
# that file's line in manifest.json.
def checkpoint(out, step):
    folder = f"{out}/checkpoints/step-{step:08d}"
    files = {}
    for name in sorted(os.listdir(folder)):
        content = open(f"{folder}/{name}", "rb").read()
        if name == "trainer_state.json":
            state = json.loads(content)
            del state["elapsed_s"]
            content = json.dumps(state).encode()
        if name == "manifest.json":
            manifest = json.loads(content)
            del manifest["files"]["trainer_state.json"]
            content = json.dumps(manifest).encode()
        files[name] = hashlib.sha256(content).hexdigest()
    return files


def losses(out, keys=("train/loss", "mtp/loss", "moe/balance_loss")):
    return {row["step"]: [row[key] for key in keys] for row in map(json.loads, open(f"{out}/metrics.jsonl"))
            if keys[0] in row}


def worst(a, b):
    return max(abs(x - y) / abs(y) for step in b for x, y in zip(a[step], b[step]))


def stop(command, out, send, to_group=False):
    """Starts a run, sends it a signal when the first checkpoint is there, and returns (exit code, stderr)."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not glob.glob(f"{out}/checkpoints/step-*") and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(send)
    try:
        _, err = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        return -1, "hung"
    return process.returncode, err


def byte_equality():
    alone = train("alone")
    check(alone.returncode == 0, f"one rank ends with 0 {alone.stderr.strip()}")
    for number, (what, fields) in enumerate(FOUR.items()):
        names = [f"threads{number}", f"again{number}", f"processes{number}"]
        for name, how in zip(names, ({"np": 0}, {"np": 0}, {"np": 4})):
            extra = sets(fields) + ([] if how["np"] else ["--ranks", "4"])
            result = train(name, *extra, **how)
            check(result.returncode == 0, f"{what}: {name} ends with 0 {result.stderr.strip()}")
        first, second, third = (checkpoint(name, 10) for name in names)
        shards = sum(name.endswith(".safetensors") for name in first)
        check(shards >= 4, f"{what}: the checkpoint is written by several ranks ({shards} tensor files)")
        check(first == second, f"{what}: the same command twice: byte-equal, file by file")
        check(first == third, f"{what}: mpirun -np 4 and --ranks 4: byte-equal, file by file "
                              f"{[n for n in first if first[n] != third.get(n)]}")
        check(losses(names[0]) == losses(names[2]), f"{what}: and so are the losses in metrics.jsonl")
        difference = worst(losses(names[0]), losses("alone"))
        check(difference <= 1e-5, f"{what}: losses of 10 steps against one rank: {difference:.1e}")


def traffic():
    result = train("traffic", "--ranks", "2")
    check(result.returncode == 0, f"two replicas end with 0 {result.stderr.strip()}")
    sent = losses("traffic", ("comm/bytes_within_node",))
    check(len(sent) == 10 and len(set(map(tuple, sent.values()))) == 1,
          f"a step sends what it sends, also after validation and a checkpoint: {sent}")


def reinforcement():
    open("grpo.textproto", "w").write(GRPO)
    layout = sets(["parallel.pipeline=2", "parallel.expert=2", "parallel.schedule=1f1b"])
    keys = ("train/loss", "rl/reward_mean", "rl/response_tokens_mean")
    for name, np, extra in (("rl1", 0, []), ("rl4", 0, [*layout, "--ranks", "4"]), ("rlmpi", 4, layout)):
        result = train(name, *extra, recipe="grpo.textproto", np=np)
        check(result.returncode == 0, f"GRPO, {name}: ends with 0 {result.stderr.strip()}")
    first, second = checkpoint("rl4", 4), checkpoint("rlmpi", 4)
    check(first == second, f"GRPO, mpirun -np 4 and --ranks 4: byte-equal, file by file "
                           f"{[n for n in first if first[n] != second.get(n)]}")
    alone, four = losses("rl1", keys), losses("rl4", keys)
    check(four == losses("rlmpi", keys), "and so are losses, rewards and lengths")
    check([alone[1][i] == four[1][i] for i in (1, 2)] == [True, True] and abs(alone[1][0] - four[1][0]) < 1e-6,
          f"GRPO: the first step's answers are one rank's: {alone[1]} {four[1]}")


def stop_and_go_on():
    long = ["--set", "steps=400", "--set", "checkpoint.every_steps=2"]
    eight = [*long, *sets(["parallel.pipeline=2", "parallel.expert=2", "parallel.schedule=zbv"])]
    code, err = stop([moebius, "train", "r.textproto", "--out", "stop8", "--ranks", "8", *eight], "stop8", signal.SIGTERM)
    check(code == 75 and "run the same command again" in err, f"SIGTERM on 8 ranks as threads: exit {code} {err.strip()}")
    done = max(losses("stop8"))
    steps = ["--set", f"steps={done + 2}", "--set", "checkpoint.every_steps=2"]
    two = train("stop8", *steps, "--ranks", "2", *sets(["parallel.pipeline=2", "parallel.schedule=1f1b"]))
    check(two.returncode == 0 and max(losses("stop8")) == done + 2, f"2 ranks go on after step {done} {two.stderr.strip()}")
    steps[1] = f"steps={done + 4}"
    other = train("stop8", *steps, *sets(["parallel.expert=4"]), np=4)
    check(other.returncode == 0, f"4 processes with another layout go on {other.stderr.strip()}")
    steps[1] = f"steps={done + 6}"
    last = train("stop8", *steps)
    check(last.returncode == 0, f"one rank goes on {last.stderr.strip()}")
    whole = train("whole", *steps)
    check(whole.returncode == 0, f"one rank without a stop {whole.stderr.strip()}")
    rows = losses("stop8")
    check(sorted(rows) == list(range(1, done + 7)), "every step is in metrics.jsonl once")
    early = [step for step in rows if step <= 10]
    difference = worst({s: rows[s] for s in early}, {s: losses("whole")[s] for s in early})
    check(difference <= 1e-5, f"losses of the first {len(early)} steps are one rank's: {difference:.1e}")

    code, err = stop([launcher, "-np", "8", "--oversubscribe", moebius, "train", "r.textproto", "--out", "usr1", *eight],
                     "usr1", signal.SIGUSR1)
    check(code == 75, f"SIGUSR1 on 8 processes through moebius-mpirun: exit {code} {err.strip()[-300:]}")
    done = max(losses("usr1"))
    again = train("usr1", "--set", f"steps={done + 1}", "--set", "checkpoint.every_steps=2", "--ranks", "2")
    check(again.returncode == 0, f"2 ranks as threads go on after step {done} {again.stderr.strip()}")


def refusals():
    long = ["--set", "steps=100000", "--set", "checkpoint.every_steps=2"]
    first = subprocess.Popen([moebius, "train", "r.textproto", "--out", "taken", "--ranks", "2", *long],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not glob.glob("taken/checkpoints/step-*") and first.poll() is None:
        time.sleep(0.01)
    for what, np, extra in (("threads", 0, ["--ranks", "2"]), ("processes", 2, [])):
        second = train("taken", *extra, *long, np=np)
        check(second.returncode == 73 and str(first.pid) in second.stderr,
              f"a second job of {what} on the folder: exit {second.returncode}, names the holder "
              f"{first.pid}: {errors(second)}")
        check(len(errors(second)) == 1, "and one rank says so")
    first.send_signal(signal.SIGTERM)
    check(first.wait(timeout=60) == 75, "the first job was not disturbed")

    for what, np, extra in (("threads", 0, ["--ranks", "4"]), ("processes", 4, [])):
        refused = train("refused", *sets(["parallel.schedule=dualpipes"]), *extra, np=np)
        check(refused.returncode == 64 and len(errors(refused)) == 1 and "dualpipes" in refused.stderr,
              f"a recipe that is wrong by itself, {what}: exit {refused.returncode} {errors(refused)}")

    open("other.textproto", "w").write(RECIPE.replace("seed: 3", "seed: 4"))
    start = time.time()
    mixed = run([*MPI, "-np", "2", moebius, "train", "r.textproto", "--out", "mixed", ":",
                 "-np", "2", moebius, "train", "other.textproto", "--out", "mixed"])
    check(mixed.returncode == 64 and "rank 2 has another recipe" in mixed.stderr,
          f"ranks with different recipes: exit {mixed.returncode} in {time.time() - start:.1f} s {errors(mixed)}")
    check(len(errors(mixed)) == 1, "one rank says so")
    check(not glob.glob("mixed/checkpoints/step-*"), "nothing was trained")

    wrong = sets(["parallel.expert=3", "parallel.pipeline=2"])
    for what, np, extra in (("threads", 0, ["--ranks", "4"]), ("processes", 4, [])):
        sizes = train("sizes", *wrong, *extra, np=np)
        text = sizes.stderr
        said = [word for word in ("4 ranks do not divide", "n_routed_experts 8") if word in text]
        check(sizes.returncode == 64 and len(said) == 2 and "batch.sequences" not in text,
              f"sizes that do not divide, {what}: exit {sizes.returncode}, all named at once: {errors(sizes)}")
        check(len(errors(sizes)) == 1, "in one line of one rank")


def verify():
    asked = ["--layout", "pp=2,ep=2,schedule=dualpipev", "--layout", "pp=2,dp=2", "--steps", "4"]
    threads = run([moebius, "verify", "r.textproto", *asked, "--json"])
    rows = [json.loads(line) for line in threads.stdout.splitlines()]
    check(threads.returncode == 0 and [row["verdict"] for row in rows] == ["equal", "equal"],
          f"verify, ranks as threads: exit {threads.returncode} {threads.stderr.strip()}")
    processes = run([*MPI, "-np", "4", moebius, "verify", "r.textproto", *asked, "--json"])
    figures = [{key: value for key, value in json.loads(line).items() if key != "seconds"}
               for line in processes.stdout.splitlines()]
    for row in rows:
        row.pop("seconds")
    check(processes.returncode == 0 and figures == rows, f"verify under mpirun prints the same figures "
                                                         f"{processes.returncode} {processes.stderr.strip()[-300:]}")
    table = run([moebius, "verify", "r.textproto", "--layout", "pp=2"])
    for word in ("shrunk: vocab_size 300 -> 40", "smallest routing margin", "bounds", "1 of 1 layouts equal one rank"):
        check(word in table.stdout, f"the table says: {word}")
    for bad, said in ((["--layout", "pp=3,ep=5"], "does not divide by parallel.expert 5"),
                      (["--layout", "pp=2,shedule=zbv"], "did you mean schedule"),
                      (["--layout", "pp=2,pipeline=1"], "says pipeline twice"),
                      (["--layout", ""], "--layout is empty"),
                      (["--layout", "pp=8,dp=2"], "--ranks allows 8")):
        refused = run([moebius, "verify", "r.textproto", *bad])
        check(refused.returncode == 64 and said in refused.stderr, f"verify {' '.join(bad)}: {refused.stderr.strip()}")
    odd = run([*MPI, "-np", "3", moebius, "verify", "r.textproto"])
    check(odd.returncode == 64 and len(errors(odd)) == 1, f"verify on 3 processes: exit {odd.returncode} {errors(odd)}")


def main():
    text = "".join(f"Sentence {i} says {'xyzab'[i % 5] * (i % 7 + 1)} and no more. " for i in range(1500))
    os.makedirs("text")
    for k in range(4):
        open(f"text/{k}.txt", "w").write(text[k * 9000:(k + 1) * 9000])
    built = run([moebius, "data", "build", "--text", "text", "--held-out", "text/3.txt", "--vocab-size", "300", "--out",
                 "data"])
    check(built.returncode == 0, f"data build: {built.stderr.strip()}")
    open("r.textproto", "w").write(RECIPE)
    for part in (byte_equality, traffic, reinforcement, stop_and_go_on, refusals, verify):
        start = time.time()
        part()
        print(f"      {part.__name__}: {time.time() - start:.0f} s", flush=True)


# Some clusters set it; a test inside an allocation must not look like a rank.
for name in list(os.environ):
    if re.match(r"OMPI_COMM_|PMI|SLURM_", name):
        del os.environ[name]
with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    main()
    os.chdir("/")
print(f"{len(failures)} failures")
sys.exit(1 if failures else 0)
