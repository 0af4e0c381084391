#!/usr/bin/env python3
"""Jobs of several ranks that lose one, or mpirun, or have a rank that hangs: they end soon, say who, and go on exactly.
Usage: fault_test.py MOEBIUS MOEBIUS_MPIRUN [KILLS [STOPS]]"""
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

moebius, launcher = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
num_kills = int(sys.argv[3]) if len(sys.argv) > 3 else 6
num_stops = int(sys.argv[4]) if len(sys.argv) > 4 else 2
HANG_LIMIT_S = 2.0
failures = []
RECIPE = """
name: "fault" task: PRETRAIN seed: 3
model {
  model_type: "deepseek_v3" vocab_size: 300 hidden_size: 32 intermediate_size: 64 moe_intermediate_size: 16
  num_hidden_layers: 4 num_attention_heads: 2 n_shared_experts: 1 n_routed_experts: 8 num_experts_per_tok: 2
  n_group: 2 topk_group: 1 first_k_dense_replace: 1 kv_lora_rank: 16 q_lora_rank: 16 qk_rope_head_dim: 8
  qk_nope_head_dim: 8 v_head_dim: 8 num_nextn_predict_layers: 1 max_position_embeddings: 64
}
data { train: "data/train.h5" validation: "data/val.h5" shuffle: true }
batch { sequences: 8 sequence_length: 32 microbatch_sequences: 1 }
steps: 120
optimizer { lr: 3e-3 schedule: COSINE warmup_steps: 5 }
checkpoint { every_steps: 5 keep: 2 }
log { every_steps: 40 }
parallel { pipeline: 2 expert: 2 schedule: "1f1b" hang_limit_s: %g }
""" % HANG_LIMIT_S


def check(condition, text):
    print(("ok    " if condition else "FAIL  ") + text, flush=True)
    if not condition:
        failures.append(text)


def command(out):
    return [launcher, "-np", "4", "--oversubscribe", moebius, "train", "r.textproto", "--out", out]


def start(out):
    return subprocess.Popen(command(out), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def processes_of(root):
    """(mpirun, ranks): below the launcher."""
    children = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
            name = open(f"/proc/{pid}/comm").read().strip()
        except (OSError, IndexError):
            continue
        if fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append((int(pid), name))
    mpirun = next((p for p, n in children.get(root, []) if n in ("mpirun", "orterun")), None)
    return mpirun, [p for p, n in children.get(mpirun, []) if n == os.path.basename(moebius)[:15]] if mpirun else []


def wait_for_ranks(process):
    until = time.time() + 20
    while time.time() < until and process.poll() is None:
        mpirun, ranks = processes_of(process.pid)
        if len(ranks) == 4:
            return mpirun, ranks
        time.sleep(0.02)
    return None, []


def alive(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def final_bytes(out):
    folder = f"{out}/checkpoints/step-00000120"
    names = sorted(n for n in os.listdir(folder) if n.endswith(".safetensors"))
    return {n: open(f"{folder}/{n}", "rb").read() for n in names}


# An mpirun that starts two ranks: one ends at once, the other after `second` seconds. `reaps` of them it takes note of,
# then it goes on for `after` seconds and ends with `code`.
STAND_IN = """#!/usr/bin/env python3
import os, time
ranks = [os.fork() or (time.sleep(s), os._exit(0)) for s in (0, %(second)g)]
for rank in ranks[:%(reaps)d]: os.waitpid(rank, 0)
time.sleep(%(after)g)
raise SystemExit(%(code)d)
"""


def check_stuck_mpirun():
    os.mkdir("bin")
    path = dict(os.environ, PATH=f"{os.getcwd()}/bin:{os.environ['PATH']}")
    for what, want, values in (
            ("takes no note of ranks that ended", 79, {"second": 0.1, "reaps": 0, "after": 1000}),
            ("takes no note of its last rank", 79, {"second": 0.1, "reaps": 1, "after": 1000}),
            ("takes note a second late, as after a failure", 75, {"second": 0, "reaps": 0, "after": 2, "code": 75}),
            ("still has a rank", 0, {"second": 4, "reaps": 0, "after": 4}),
            ("has taken note of all its ranks and goes on", 0, {"second": 0.1, "reaps": 2, "after": 4})):
        with open("bin/mpirun", "w") as file:
            file.write(STAND_IN % {"code": 0, **values})
        os.chmod("bin/mpirun", 0o755)
        run = subprocess.run(command("none"), env=path, capture_output=True, text=True, timeout=60)
        check(run.returncode == want, f"an mpirun that {what}: exit {run.returncode} {run.stderr[-300:]}")


def main():
    check_stuck_mpirun()
    text = "".join(f"Sentence {i} says {'xyzab'[i % 5] * (i % 7 + 1)} and no more. " for i in range(1500))
    os.makedirs("text")
    for k in range(4):
        open(f"text/{k}.txt", "w").write(text[k * 9000:(k + 1) * 9000])
    subprocess.run([moebius, "data", "build", "--text", "text", "--held-out", "text/3.txt", "--vocab-size", "300", "--out",
                    "data"], capture_output=True, check=True)
    open("r.textproto", "w").write(RECIPE)
    whole = start("whole")
    out, _ = whole.communicate(timeout=300)
    check(whole.returncode == 0, f"an undisturbed job ends with 0 {out[-300:] if whole.returncode else ''}")
    want = final_bytes("whole")

    rng = random.Random(5)
    kills, worst = 0, 0.0
    while kills < num_kills:
        process = start("killed")
        mpirun, ranks = wait_for_ranks(process)
        if not ranks:
            out, _ = process.communicate(timeout=60)
            check(process.returncode == 0, f"a job that was not killed ends with 0 {out[-300:]}")
            continue
        time.sleep(rng.uniform(0.0, 3.0))
        victim = rng.choice(ranks + [mpirun])
        if process.poll() is not None:  # done before the kill: begin again
            check(final_bytes("killed") == want, f"byte-equal after {kills} kills")
            shutil.rmtree("killed")
            continue
        killed_at = time.time()
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            continue
        out, _ = process.communicate(timeout=60)
        while any(alive(p) for p in ranks) and time.time() - killed_at < 20:
            time.sleep(0.02)
        took = time.time() - killed_at
        worst = max(worst, took)
        kills += 1
        who = "mpirun" if victim == mpirun else "a rank"
        if process.returncode == 0:  # killed while it was ending
            continue
        if took > 5 or process.returncode != 79:
            check(False, f"kill {kills} of {who}: exit {process.returncode} after {took:.1f} s: {out[-400:]}")
    check(worst <= 5, f"{kills} kills: the job was gone after at most {worst:.1f} s")
    process = start("killed")
    out, _ = process.communicate(timeout=300)
    check(process.returncode == 0, f"after {kills} kills the job ends with 0 {out[-300:] if process.returncode else ''}")
    check(final_bytes("killed") == want, "weights and moments are byte-equal to the undisturbed job")

    worst = 0.0
    for i in range(num_stops):
        process = start("stopped")
        _, ranks = wait_for_ranks(process)
        until = time.time() + 30
        while not os.path.exists("stopped/checkpoints/latest") and time.time() < until:
            time.sleep(0.02)
        if not ranks or process.poll() is not None:
            process.communicate()
            shutil.rmtree("stopped")
            check(False, f"stop {i}: the job was over too early")
            continue
        # Which rank a process is stands in its environment.
        victim = rng.choice(ranks)
        rank = next(v.split("=")[1] for v in open(f"/proc/{victim}/environ").read().split("\0")
                    if v.startswith("OMPI_COMM_WORLD_RANK="))
        os.kill(victim, signal.SIGSTOP)
        stopped_at = time.time()
        out, _ = process.communicate(timeout=60)
        took = time.time() - stopped_at
        while any(alive(p) for p in ranks) and time.time() - stopped_at < 20:
            time.sleep(0.02)
        worst = max(worst, took)
        named = f"waits for ranks {rank}" in out or f"waits for rank {rank}" in out
        check(process.returncode == 79 and named and "action" in out and not any(alive(p) for p in ranks),
              f"stop {i + 1} of rank {rank}: exit {process.returncode} after {took:.1f} s, named: {named}"
              + ("" if named else out[-600:]))
        shutil.rmtree("stopped")
    # A second for the ranks, and three more where mpirun locks itself up.
    check(worst <= HANG_LIMIT_S + 4, f"{num_stops} stops: the job was gone after at most {worst:.1f} s")

    # A request to stop reaches all ranks, through the launcher.
    process = start("asked")
    wait_for_ranks(process)
    while not os.path.exists("asked/checkpoints/latest") and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    check(process.returncode == 75, f"SIGTERM to the launcher: exit {process.returncode} {out[-300:]}")
    process = start("asked")
    process.communicate(timeout=300)
    check(process.returncode == 0 and final_bytes("asked") == want, "the same command again ends byte-equal")


with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    main()
    os.chdir("/")
print(f"{len(failures)} failures")
sys.exit(1 if failures else 0)
