#!/usr/bin/env python3
"""Runs of reinforcement that are killed while they sample, judge or update end with the weights of an undisturbed run.
Usage: rl_resume_test.py MOEBIUS [--without-programs]"""
import glob
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

moebius = os.path.abspath(sys.argv[1])
with_programs = "--without-programs" not in sys.argv
failures = []
MODEL = """
model {
  model_type: "deepseek_v3" hidden_size: 32 intermediate_size: 64 moe_intermediate_size: 16
  num_hidden_layers: 2 num_attention_heads: 2 n_shared_experts: 1 n_routed_experts: 4 num_experts_per_tok: 2
  n_group: 1 topk_group: 1 first_k_dense_replace: 1 kv_lora_rank: 16 qk_rope_head_dim: 8 qk_nope_head_dim: 8
  v_head_dim: 8 max_position_embeddings: 64 initializer_range: 0.08
}
precision { compute: FP32 }
threads: 2
"""
# The reference policy follows, so where it stands has to survive as well.
SORT = MODEL + """
name: "sort" task: GRPO seed: 3 tokenizer: "symbols:0123456789sort ="
problems { kind: "sort" sort_length: 2 }
reward { part { name: "dense" } }
batch { sequences: 16 sequence_length: 16 }
steps: 48
optimizer { lr: 3e-3 schedule: COSINE warmup_steps: 5 }
rl { group_size: 8 max_new: 3 kl: TRUE_GRADIENT kl_coefficient: 0.02 reference_refresh_steps: 9 updates: 2
     refill_rounds: 1 archive_every_steps: 5 entropy_floor: 1.5 }
evaluate { every_steps: 10 problems: 20 }
checkpoint { every_steps: 3 keep: 2 }
log { every_steps: 20 }
"""
SYMBOLS = "0123456789x= give"
PROGRAMS_SFT = MODEL + f"""
name: "programs-sft" task: SFT seed: 3 tokenizer: "symbols:{SYMBOLS}"
problems {{ jsonl: "programs.jsonl" jsonl_kind: CODE held_out: 0 }}
batch {{ sequences: 16 sequence_length: 16 }}
steps: 40
optimizer {{ lr: 3e-3 schedule: COSINE warmup_steps: 2 }}
"""
PROGRAMS = """
name: "programs" task: GRPO seed: 3
init { from: "programs-sft/checkpoints/latest" }
problems { jsonl: "programs.jsonl" jsonl_kind: CODE held_out: 0 }
batch { sequences: 4 sequence_length: 16 }
steps: 12
optimizer { lr: 1e-3 }
rl { group_size: 4 max_new: 4 kl: K3 kl_coefficient: 0.01 }
checkpoint { every_steps: 3 keep: 2 }
precision { compute: FP32 }
threads: 2
"""
TEACHER = MODEL.replace("hidden_size: 32", "hidden_size: 48") + """
name: "teacher" task: SFT seed: 4 tokenizer: "symbols:0123456789sort ="
problems { kind: "sort" sort_length: 2 }
rl { max_new: 3 }
batch { sequences: 16 sequence_length: 16 }
steps: 60
optimizer { lr: 3e-3 warmup_steps: 5 }
checkpoint { keep: 3 }
"""
STUDENT = MODEL + """
name: "student" task: DISTILL seed: 3 tokenizer: "symbols:0123456789sort ="
problems { kind: "sort" sort_length: 2 }
rl { max_new: 3 }
distill { teacher: "teacher/checkpoints/latest" temperature: 2 hard_weight: 0.2 }
batch { sequences: 16 sequence_length: 16 microbatch_sequences: 4 }
steps: 60
optimizer { lr: 3e-3 schedule: COSINE warmup_steps: 5 }
evaluate { every_steps: 2 problems: 10 }
checkpoint { every_steps: 3 keep: 2 }
log { every_steps: 20 }
"""
# Tests that pass or fail by chance: without a journal no two runs keep the same answers.
REJECTION = """
name: "rejection" task: REJECTION seed: 3
init { from: "programs-sft/checkpoints/latest" }
problems { jsonl: "chance.jsonl" jsonl_kind: CODE held_out: 0 }
reward { judge_again: 0.5 }
batch { sequences: 4 sequence_length: 16 }
steps: 12
rl { group_size: 4 max_new: 4 }
rejection { keep: 4 }
checkpoint { every_steps: 3 keep: 2 }
precision { compute: FP32 }
threads: 2
"""
STAGES = {"pipe.textproto": """
name: "pipe" task: PIPELINE
stage { name: "sft" recipe: "pipe_sft.textproto" }
stage { name: "grpo" recipe: "pipe_grpo.textproto" }
""", "pipe_sft.textproto": MODEL + """
name: "pipe-sft" task: SFT seed: 3 tokenizer: "symbols:0123456789sort ="
problems { kind: "sort" sort_length: 2 }
batch { sequences: 16 sequence_length: 16 }
steps: 40
optimizer { lr: 3e-3 }
checkpoint { every_steps: 4 }
rl { max_new: 3 }
evaluate { problems: 20 }
""", "pipe_grpo.textproto": """
name: "pipe-grpo" task: GRPO seed: 3
init { from: "pipe/01-sft/checkpoints/latest" }
problems { kind: "sort" sort_length: 2 }
reward { part { name: "dense" } }
batch { sequences: 16 sequence_length: 16 }
steps: 60
optimizer { lr: 3e-3 }
rl { group_size: 8 max_new: 3 }
evaluate { problems: 20 }
checkpoint { every_steps: 4 }
precision { compute: FP32 }
threads: 2
"""}


def check(condition, text):
    print(("ok    " if condition else "FAIL  ") + text, flush=True)
    if not condition:
        failures.append(text)


taken = {}  # seconds of each run


def train(recipe, out, *extra):
    start = time.time()
    done = run_train(recipe, out, *extra)
    taken[out] = time.time() - start
    return done


def run_train(recipe, out, *extra):
    return subprocess.run([moebius, "train", recipe, "--out", out, *extra], capture_output=True, text=True, timeout=300)


def final_bytes(out, step):
    folder = f"{out}/checkpoints/step-{step:08d}"
    names = sorted(n for n in os.listdir(folder) if n.endswith(".safetensors"))
    return {n: open(f"{folder}/{n}", "rb").read() for n in names}


def metrics(out):
    timed = ("time_s", "perf/", "mem/", "rl/rollout_tokens_per_s", "rl/rollout_s", "rl/update_s")
    rows = [json.loads(line) for line in open(f"{out}/metrics.jsonl")]
    return [{k: v for k, v in row.items() if not k.startswith(timed)} for row in rows]


def samples(out):
    return {os.path.basename(p): open(p, "rb").read() for p in glob.glob(f"{out}/samples/*")}


def work_done(out):
    """Grows with every step and every verdict."""
    files = glob.glob(f"{out}/**/samples/*", recursive=True) + glob.glob(f"{out}-verdicts/*")
    return sum(os.path.getsize(p) for p in files)


def gather_verdicts(out):
    """Of all steps, to OUT-verdicts: a run that starts again drops those of steps that it will not make again."""
    os.makedirs(f"{out}-verdicts", exist_ok=True)
    for path in glob.glob(f"{out}/journal/*.jsonl"):
        lines = [line for line in open(path) if line.endswith("\n")]
        keys = [tuple(json.loads(line)[k] for k in ("step", "problem", "answer")) for line in lines]
        if len(keys) != len(set(keys)):
            check(False, f"a program was judged twice: {path}")
        gathered = f"{out}-verdicts/{os.path.basename(path)}"
        known = set(open(gathered)) if os.path.exists(gathered) else set()
        with open(gathered, "a") as f:
            f.writelines(line for line in lines if line not in known)


def kill_until_done(recipe, out, want, steps, kills, longest, seconds, judge=lambda: None, extra=(), last_stage="."):
    """Starts the run again and again, killing it at random moments; once through, starts over until enough were killed."""
    at_end = f"{out}/{last_stage}"
    rng = random.Random(11)
    done = 0
    start = time.time()
    rows = -1
    forward = 0
    while (done < kills or forward < 3) and time.time() - start < seconds:
        process = subprocess.Popen([moebius, "train", recipe, "--out", out, *extra], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True)
        try:
            _, err = process.communicate(timeout=rng.uniform(0.05, longest))
            gather_verdicts(out)
            check(process.returncode == 0, f"{recipe}: a run that was not killed ends with 0 {err}")
            check(final_bytes(at_end, steps) == want, f"{recipe}: byte-equal after {done} kills")
            judge()
            shutil.rmtree(out)
            shutil.rmtree(f"{out}-verdicts")
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            gather_verdicts(out)
            done += 1
        before, rows = rows, work_done(out)
        forward += rows > before
        if rows <= before:  # the machine is busier than it was: wait longer
            longest *= 1.2
    last = train(recipe, out, *extra)
    gather_verdicts(out)
    check(last.returncode == 0, f"{recipe}: after {done} kills the run ends with 0 {last.stderr.strip()}")
    check(done >= kills, f"{recipe}: {done} kills happened, {forward} after new steps, within {longest:.2f} s each")
    check(forward >= 3, f"{recipe}: kills hit the run while it was at work")
    check(final_bytes(at_end, steps) == want, f"{recipe}: weights and moments are byte-equal to the undisturbed run")
    judge()


def point(out, link, step):
    os.remove(f"{out}/checkpoints/{link}")
    os.symlink(f"step-{step:08d}", f"{out}/checkpoints/{link}")


def same_rows(recipe, got, want):
    odd = next(((a, b) for a, b in zip(got, want) if a != b), (len(got), len(want)))
    check(got == want, f"{recipe}: metrics are those of the undisturbed run, none twice {'' if got == want else odd}")


def sort():
    open("sort.textproto", "w").write(SORT)
    whole = train("sort.textproto", "whole")
    check(whole.returncode == 0, f"an undisturbed run ends with 0 {whole.stderr.strip()}")
    want = final_bytes("whole", 48)
    learned = [row["rl/reward_mean"] for row in metrics("whole") if "rl/reward_mean" in row]
    check(len(learned) == 48 and learned[-1] > learned[0] + 0.1, f"it learns: reward {learned[0]} to {learned[-1]}")
    kill_until_done("sort.textproto", "killed", want, 48, 12, 0.6 * taken["whole"], 150)
    same_rows("sort.textproto", metrics("killed"), metrics("whole"))
    check(samples("killed") == samples("whole"), "samples and archives are those of the undisturbed run")

    # Ranks that share the model's layers and the sampling.
    ranks = ("--ranks", "2", "--set", "parallel.pipeline=2")
    two = train("sort.textproto", "two", *ranks)
    check(two.returncode == 0, f"two ranks end with 0 {two.stderr.strip()}")
    kill_until_done("sort.textproto", "two-killed", final_bytes("two", 48), 48, 6, 0.6 * taken["two"], 100, extra=ranks)

    # The reference moves right after its checkpoint was saved. A kill in between must not leave it behind.
    kept = train("sort.textproto", "between", "--set", "checkpoint.keep=100")
    check(kept.returncode == 0 and final_bytes("between", 48) == want, f"with all checkpoints kept {kept.stderr.strip()}")
    # A run that goes back to an earlier checkpoint goes back to the reference of that time.
    point("between", "latest", 21)
    back = train("sort.textproto", "between", "--set", "checkpoint.keep=100")
    check(back.returncode == 0 and final_bytes("between", 48) == want, f"gone back to step 21: byte-equal {back.stderr.strip()}")
    same_rows("sort.textproto", metrics("between"), metrics("whole"))
    for step in range(12, 49, 3):
        shutil.rmtree(f"between/checkpoints/step-{step:08d}")
    point("between", "latest", 9)
    point("between", "reference", 0)
    last = train("sort.textproto", "between")
    check(last.returncode == 0 and final_bytes("between", 48) == want,
          f"killed before the reference moved: byte-equal {last.stderr.strip()}")

    # A fork begins later: so does its reference.
    forked = train("sort.textproto", "forked", "--set", "fork.from=whole", "--set", "fork.step=45", "--set", "steps=50")
    check(forked.returncode == 0 and metrics("forked")[0]["step"] == 46 and metrics("forked")[0]["rl/kl"] >= 0,
          f"a fork compares with the policy that it begins with {forked.stderr.strip()}")
    check(os.path.basename(os.path.realpath("forked/checkpoints/reference")) == "step-00000045", "which is marked")

    # Without its reference a run cannot go on.
    process = subprocess.run([moebius, "train", "sort.textproto", "--out", "short", "--set", "max_minutes=0.0001"],
                             capture_output=True, text=True, timeout=100)
    check(process.returncode == 75, f"max_minutes: exit {process.returncode} {process.stderr.strip()}")
    shutil.rmtree("short/checkpoints/step-00000000")
    gone = train("sort.textproto", "short")
    check(gone.returncode == 65 and "reference" in gone.stderr, f"no reference: exit {gone.returncode} {gone.stderr.strip()}")


# Stopped after every step: what a run decides by what came before it has to survive.
def stop_after_each(recipe, out, sets):
    for _ in range(100):
        done = train(recipe, out, *sets, "--set", "max_minutes=1e-6")
        if done.returncode != 75:
            return done


def stops():
    # Of a step that is due for a new reference, but bad: the reference stays where it was.
    bad = ["--set", "steps=10", "--set", "optimizer.lr=100", "--set", "optimizer.clip_norm=0", "--set",
           "optimizer.schedule=CONSTANT", "--set", "optimizer.warmup_steps=0", "--set", "rl.reference_refresh_steps=4",
           "--set", "max_bad_steps=100", "--set", "rl.no_signal_steps=0"]
    whole, parts = train("sort.textproto", "bad", *bad), stop_after_each("sort.textproto", "bad-stopped", bad)
    check((whole.returncode, parts.returncode) == (0, 0), f"bad steps {whole.stderr.strip()} {parts.stderr.strip()}")
    skipped = [row["step"] for row in metrics("bad") if row.get("train/grad_norm", 0) is None]
    check(8 in skipped and 4 not in skipped, f"step 8 is bad, step 4 is not: {skipped}")
    references = [os.readlink(f"{out}/checkpoints/reference") for out in ("bad", "bad-stopped")]
    check(references == ["step-00000004"] * 2, f"the reference does not move at a bad step: {references}")

    # Steps without a signal are counted on.
    flat = ["--set", "problems.sort_length=6", "--set", "rl.max_new=1", "--set", "reward.part[0].name=correct", "--set",
            "rl.no_signal_steps=4", "--set", "steps=30"]
    whole, parts = train("sort.textproto", "flat", *flat), stop_after_each("sort.textproto", "flat-stopped", flat)
    check((whole.returncode, parts.returncode) == (76, 76), f"no signal: {whole.returncode}, stopped {parts.returncode}")
    steps = [metrics(out)[-1]["step"] for out in ("flat", "flat-stopped")]
    check(steps == [4, 4], f"after 4 steps without a signal: {steps}")
    on = train("sort.textproto", "flat", *flat, "--set", "rl.no_signal_steps=0", "--set", "steps=6")
    check(on.returncode == 0, f"and goes on where the limit is lifted: {on.returncode} {on.stderr.strip()}")


def programs():
    with open("programs.jsonl", "w") as f:
        for n in range(10):
            tests = {"kind": "assert", "tests": [{"input": f"assert x == {n}"}]}
            f.write(json.dumps({"prompt": f"give {n}", "tests": tests, "solution": f"x={n}"}) + "\n")
    open("programs_sft.textproto", "w").write(PROGRAMS_SFT)
    open("programs.textproto", "w").write(PROGRAMS)
    start = train("programs_sft.textproto", "programs-sft")
    check(start.returncode == 0, f"worked programs are learned {start.stderr.strip()}")
    whole = train("programs.textproto", "programs-whole")
    check(whole.returncode == 0, f"reinforcement by programs ends with 0 {whole.stderr.strip()}")
    want = final_bytes("programs-whole", 12)
    rows = metrics("programs-whole")
    rewards = [row["rl/reward_mean"] for row in rows if "rl/reward_mean" in row]
    check(0 < max(rewards) and min(rewards) < 1, f"some programs pass, some fail: {rewards}")
    judged = len(verdicts("programs-whole"))
    check(judged > 12, f"{judged} verdicts are journalled")

    # Without its sandbox a run ends where it stands, and goes on when it is started again.
    process = subprocess.Popen([moebius, "train", "programs.textproto", "--out", "programs-alone"], stderr=subprocess.PIPE,
                               stdout=subprocess.DEVNULL, text=True)
    while process.poll() is None and not os.path.exists("programs-alone/checkpoints/step-00000003"):
        time.sleep(0.02)
    runner = open(f"/proc/{process.pid}/task/{process.pid}/children").read().split()
    subprocess.run(["kill", "-9", *runner], check=False)
    _, err = process.communicate(timeout=120)
    check(process.returncode == 69 and "runner" in err, f"a killed sandbox: exit {process.returncode} {err.strip()}")
    alone = train("programs.textproto", "programs-alone")
    check(alone.returncode == 0 and final_bytes("programs-alone", 12) == want, f"byte-equal after it {alone.stderr.strip()}")

    # Verdicts are looked up before anything is judged: with all of them turned round, so are the rewards.
    os.makedirs("programs-turned/journal")
    with open("programs-turned/journal/verdicts-7.jsonl", "w") as f:
        for v in verdicts("programs-whole"):
            f.write(json.dumps(v | {"correct": 1 - v["correct"]}) + "\n")
    turned = train("programs.textproto", "programs-turned")
    first = next(row["rl/reward_mean"] for row in metrics("programs-turned") if row["step"] == 1)
    check(turned.returncode == 0 and abs(first - (1 - rewards[0])) < 1e-9, f"the journal counts: {first}, {rewards[0]}")

    # But only for the tests that gave them: where the file asks for something else by now, all is judged anew.
    with open("edited.jsonl", "w") as f:
        f.write(open("programs.jsonl").read().replace("assert x == ", "assert x == 1000 + "))
    shutil.copytree("programs-whole/journal", "programs-edited/journal")
    edited = train("programs.textproto", "programs-edited", "--set", 'problems.jsonl="edited.jsonl"', "--set", "steps=3")
    now = [row["rl/reward_mean"] for row in metrics("programs-edited") if "rl/reward_mean" in row]
    check(edited.returncode == 0 and max(rewards[:3]) > 0 and now == [0, 0, 0],
          f"verdicts of other tests do not count: {rewards[:3]}, then {now} {edited.stderr.strip()}")

    # Each rank journals what it judges.
    two = train("programs.textproto", "programs-two", "--ranks", "2")
    files = [os.path.getsize(p) for p in glob.glob("programs-two/journal/verdicts-[01].jsonl")]
    check(two.returncode == 0 and len(files) == 2 and min(files) > 0, f"two ranks journal {files} {two.stderr.strip()}")

    kill_until_done("programs.textproto", "programs-killed", want, 12, 10, 0.6 * taken["programs-whole"], 150)
    all_steps = {v["step"] for v in verdicts("programs-whole")}
    check({json.loads(line)["step"] for line in open("programs-killed-verdicts/verdicts-0.jsonl")} == all_steps,
          "every step has its verdicts")
    longer = train("programs.textproto", "programs-whole", "--set", "steps=14")
    left = {v["step"] for v in verdicts("programs-whole")}
    check(longer.returncode == 0 and left < all_steps | {13, 14} and {12, 13, 14} <= left,
          f"those of steps that are not made again have left the journal: {left} {longer.stderr.strip()}")
    same_rows("programs.textproto", metrics("programs-killed"), rows)


def distillation():
    open("teacher.textproto", "w").write(TEACHER)
    open("student.textproto", "w").write(STUDENT)
    made = train("teacher.textproto", "teacher")
    check(made.returncode == 0, f"a teacher is made {made.stderr.strip()}")
    for name, ranks in (("one", ()), ("two", ("--ranks", "2", "--set", "parallel.pipeline=2"))):
        out = f"student-{name}"
        whole = train("student.textproto", out, *ranks)
        check(whole.returncode == 0, f"distillation on {name} ends with 0 {whole.stderr.strip()}")
        divergences = [row["distill/kl"] for row in metrics(out) if "distill/kl" in row]
        check(len(divergences) == 60 and divergences[-1] < 0.5 * divergences[0], f"it learns: {divergences[::59]}")
        kill_until_done("student.textproto", f"{out}-killed", final_bytes(out, 60), 60, 6, 0.6 * taken[out], 60, extra=ranks)
    same_rows("student.textproto", metrics("student-one-killed"), metrics("student-one"))
    # A teacher that went on learning is another one.
    short = train("student.textproto", "student-short", "--set", "max_minutes=0.0001")
    check(short.returncode == 75, f"max_minutes: exit {short.returncode} {short.stderr.strip()}")
    more = train("teacher.textproto", "teacher", "--set", "steps=61")
    other = train("student.textproto", "student-short")
    check(more.returncode == 0 and other.returncode == 64 and "distill.teacher" in other.stderr,
          f"another teacher: exit {other.returncode} {other.stderr.strip()}")
    point("teacher", "latest", 60)
    same = train("student.textproto", "student-short")
    check(same.returncode == 0 and final_bytes("student-short", 60) == final_bytes("student-one", 60),
          f"with its teacher again: byte-equal {same.stderr.strip()}")


def kept(out):
    return open(f"{out}/kept.jsonl", "rb").read()


def rejection():
    with open("chance.jsonl", "w") as f:
        for n in range(10):
            script = f"import os\nassert x == {n} and os.urandom(1)[0] < 128"
            tests = {"kind": "assert", "tests": [{"input": script}]}
            f.write(json.dumps({"prompt": f"give {n}", "tests": tests}) + "\n")
    open("rejection.textproto", "w").write(REJECTION)
    first = train("rejection.textproto", "rejection-first")
    check(first.returncode == 0, f"rejection sampling ends with 0 {first.stderr.strip()}")
    check("warning: flaky verdicts" in first.stdout, "verdicts by chance are warned of")
    check(any(row.get("rl/flaky_verdicts", 0) > 0 for row in metrics("rejection-first")), "and measured")

    # By its own verdicts, which the journal has, an undisturbed run keeps the same.
    def same_kept():
        shutil.rmtree("rejection-again", ignore_errors=True)
        shutil.copytree("rejection-killed-verdicts", "rejection-again/journal")
        again = train("rejection.textproto", "rejection-again")
        check(again.returncode == 0 and kept("rejection-again").count(b"\n") > 0,
              f"answers are kept {again.stderr.strip()}")
        check(kept("rejection-again") == kept("rejection-killed"), "kept.jsonl is that of an undisturbed run")
        same_rows("rejection.textproto", metrics("rejection-killed"), metrics("rejection-again"))

    kill_until_done("rejection.textproto", "rejection-killed", final_bytes("rejection-first", 12), 12, 6,
                    0.6 * taken["rejection-first"], 60, same_kept)


def kill_when(out, path):
    """Starts the pipeline and kills it as soon as `path` is there."""
    process = subprocess.Popen([moebius, "train", "pipe.textproto", "--out", out], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    start = time.time()
    while not os.path.exists(path) and process.poll() is None and time.time() - start < 60:
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    check(process.wait() == -signal.SIGKILL, f"killed when {path} was there")


def pipeline():
    for name, text in STAGES.items():
        open(name, "w").write(text)
    whole = train("pipe.textproto", "pipe")
    check(whole.returncode == 0, f"a pipeline ends with 0 {whole.stderr.strip()}")
    want_sft, want = final_bytes("pipe/01-sft", 40), final_bytes("pipe/02-grpo", 60)
    os.rename("pipe", "pipe-whole")
    # Between stages: the first is done, the second is not there or has nothing but its folder.
    for path in ("pipe/01-sft/checkpoints/step-00000040", "pipe/02-grpo", "pipe/02-grpo/metrics.jsonl"):
        kill_when("pipe", path)

    def both():
        check(final_bytes("pipe/01-sft", 40) == want_sft, "pipeline: the first stage's weights, too")

    kill_until_done("pipe.textproto", "pipe", want, 60, 8, 0.7 * taken["pipe"], 60, both, last_stage="02-grpo")


def verdicts(out):
    return [json.loads(line) for p in glob.glob(f"{out}/journal/*.jsonl") for line in open(p)]


with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    sort()
    stops()
    distillation()
    pipeline()
    if with_programs:
        programs()
        rejection()
    os.chdir("/")
print(f"{len(failures)} failures")
sys.exit(1 if failures else 0)
