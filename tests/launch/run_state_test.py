#!/usr/bin/env python3
"""What a run folder keeps beside checkpoints: the reference policy, samples of a step, the rows of a fork.
Usage: run_state_test.py MOEBIUS"""
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

moebius = os.path.abspath(sys.argv[1])
failures = []
COMMON = """
model {
  model_type: "deepseek_v3" hidden_size: 32 intermediate_size: 64 moe_intermediate_size: 16
  num_hidden_layers: 2 num_attention_heads: 2 n_shared_experts: 1 n_routed_experts: 4 num_experts_per_tok: 2
  n_group: 1 topk_group: 1 first_k_dense_replace: 1 kv_lora_rank: 16 qk_rope_head_dim: 8 qk_nope_head_dim: 8
  v_head_dim: 8 max_position_embeddings: 64 initializer_range: 0.08
}
precision { compute: FP32 }
threads: 2
seed: 3
tokenizer: "symbols:0123456789sort ="
problems { kind: "sort" sort_length: 2 }
batch { sequences: 16 sequence_length: 16 }
optimizer { lr: 3e-3 }
"""
GRPO = COMMON + """
name: "sort" task: GRPO steps: 8
reward { part { name: "dense" } }
rl { group_size: 8 max_new: 3 kl: TRUE_GRADIENT kl_coefficient: 0.02 }
evaluate { every_steps: 4 problems: 20 }
sample { every_steps: 4 max_new: 4 prompts: "sort 12 =" }
checkpoint { every_steps: 4 keep: 1 }
"""
SFT = COMMON + """
name: "taught" task: SFT steps: 6
rl { max_new: 3 }
checkpoint { keep: 1 }
"""


def expect(condition, what):
    if not condition:
        failures.append(what)
        print("FAILED: " + what, flush=True)


def write(name, text):
    with open(name, "w") as f:
        f.write(text)


def rows(path):
    with open(path) as f:
        return [json.loads(line) for line in f]


def tensors(path, part):
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        start = f.tell()
        out = []
        for name, tensor in header.items():
            if part in name:
                begin, end = tensor["data_offsets"]
                f.seek(start + begin)
                out.append(struct.unpack(f"<{(end - begin) // 4}f", f.read(end - begin)))
        return out


def train(*words):
    return subprocess.run([moebius, "train", *words], capture_output=True, text=True)


def check_reinforced():
    write("sort.textproto", GRPO)
    done = train("sort.textproto", "--out", "sort")
    expect(done.returncode == 0, f"GRPO ends with {done.returncode}: {done.stderr}")

    # Prompts of the recipe and answers of the step are of one file.
    samples = rows("sort/samples/step-00000004.jsonl")
    expect(sum(s["prompt"] == "sort 12 =" for s in samples) == 1, f"the recipe's prompt is among {samples}")
    expect(any("advantage" in s.get("values", {}) for s in samples), f"answers of the step are among {samples}")

    # The policy that the run compares with is read again, byte by byte.
    reference = os.path.realpath("sort/checkpoints/reference/model.safetensors")
    expect("step-00000000" in reference, f"the reference is the first policy, not {reference}")
    with open(reference, "rb") as f:
        whole = f.read()
    os.chmod(reference, 0o644)
    with open(reference, "wb") as f:
        f.write(whole[:-5] + bytes([whole[-5] ^ 0x40]) + whole[-4:])
    done = train("sort.textproto", "--out", "sort", "--set", "steps=12")
    expect(done.returncode == 65, f"a damaged reference ends with {done.returncode}")
    expect("checkpoints/reference/model.safetensors" in done.stderr, f"it is named: {done.stderr}")
    with open(reference, "wb") as f:
        f.write(whole)
    done = train("sort.textproto", "--out", "sort", "--set", "steps=12")
    expect(done.returncode == 0, f"repaired, the run goes on: {done.stderr}")


# Where no group teaches, nothing is balanced and nothing is said of it.
def check_flat_steps():
    write("flat.textproto", GRPO.replace("sort_length: 2", "sort_length: 6") + """
balance { bias_update_speed: 0.01 }""")
    done = train("flat.textproto", "--out", "flat", "--set", "steps=2", "--set", "reward.part[0].name=correct", "--set",
                 "rl.max_new=1", "--set", "rl.kl=NO_KL", "--set", "rl.no_signal_steps=0", "--set", "rl.router_bias=MOVING")
    expect(done.returncode == 0, f"flat steps end with {done.returncode}: {done.stderr}")
    said = [name for row in rows("flat/metrics.jsonl") for name in row if name.startswith("moe/")]
    expect(not said and not rows("flat/expert_load.jsonl"), f"flat steps say of experts: {said}")
    biases = tensors("flat/checkpoints/latest/model.safetensors", "e_score_correction_bias")
    expect(biases and not any(any(values) for values in biases), f"flat steps move the selection biases: {biases}")


# What a run writes down of its recipe is a recipe: it goes on with it, and makes the same run anew.
def check_resolved_recipes():
    write("taught.textproto", SFT)
    for name in ("sort", "taught"):
        first = train(f"{name}.textproto", "--out", f"r-{name}", "--set", "steps=4")
        expect(first.returncode == 0, f"{name} ends with {first.returncode}: {first.stderr}")
        resolved = f"r-{name}/recipe.resolved.textproto"
        again = train(resolved, "--out", f"again-{name}")
        expect(again.returncode == 0, f"{resolved} ends with {again.returncode}: {again.stderr}")
        weights = [open(f"{run}-{name}/checkpoints/latest/model.safetensors", "rb").read() for run in ("r", "again")]
        expect(weights[0] == weights[1], f"{resolved} makes other weights")
        more = train(resolved, "--out", f"r-{name}", "--set", "steps=5")
        expect(more.returncode == 0, f"{resolved} goes on with {more.returncode}: {more.stderr}")


# Other conversations than a run began with are refused, whatever became of its links.
def check_data_is_the_same():
    def conversation(answer):
        messages = [{"role": "user", "content": "sort 21="}, {"role": "assistant", "content": answer}]
        return json.dumps({"messages": messages}) + "\n"
    write("talk.jsonl", conversation("12") * 4)
    write("talk.textproto", SFT.replace('problems { kind: "sort" sort_length: 2 }\n', "") + 'sft { data: "talk.jsonl" }\n')
    done = train("talk.textproto", "--out", "talk", "--set", "steps=2")
    expect(done.returncode == 0, f"conversations: {done.returncode} {done.stderr}")
    write("talk.jsonl", conversation("21") * 4)
    for lost in (False, True):
        if lost:
            os.remove("talk/checkpoints/latest")
        done = train("talk.textproto", "--out", "talk", "--set", "steps=3")
        expect(done.returncode == 64 and "talk.jsonl" in done.stderr, f"other conversations: {done.returncode} {done.stderr}")
    # The same ones may lie in another folder.
    write("talk.jsonl", conversation("12") * 4)
    os.makedirs("elsewhere")
    os.rename("talk.jsonl", "elsewhere/talk.jsonl")
    moved = train("talk.textproto", "--out", "talk", "--set", "steps=3", "--set", 'sft.data="./elsewhere/talk.jsonl"')
    expect(moved.returncode == 0, f"conversations in another folder: {moved.returncode} {moved.stderr}")
    os.rename("elsewhere/talk.jsonl", "talk.jsonl")
    # All files of a folder or a glob.
    os.makedirs("talks")
    for name in ("a", "b"):
        write(f"talks/{name}.jsonl", conversation("12") * 2)
    for n, pattern in enumerate(("talks", "talks/*.jsonl")):
        of = ("talk.textproto", "--out", f"talks-{n}", "--set", f'sft.data="{pattern}"')
        done = train(*of, "--set", "steps=2")
        expect(done.returncode == 0, f"conversations of {pattern}: {done.returncode} {done.stderr}")
        write("talks/b.jsonl", conversation("21") * 2)
        done = train(*of, "--set", "steps=3")
        expect(done.returncode == 64 and pattern in done.stderr, f"others of {pattern}: {done.returncode} {done.stderr}")
        write("talks/b.jsonl", conversation("12") * 2)
    # Problems are found by their places, which other lines would move.
    problem = json.dumps({"prompt": "sort 21=", "answer": "12"}) + "\n"
    write("asked.jsonl", problem * 40)
    write("asked.textproto", GRPO.replace('problems { kind: "sort" sort_length: 2 }',
                                          'problems { jsonl: "asked.jsonl" jsonl_kind: EXACT held_out: 0 }')
          .replace('reward { part { name: "dense" } }\n', "").replace("evaluate { every_steps: 4 problems: 20 }\n", ""))
    done = train("asked.textproto", "--out", "asked", "--set", "steps=2")
    expect(done.returncode == 0, f"problems of a file: {done.returncode} {done.stderr}")
    write("asked.jsonl", problem * 41)
    done = train("asked.textproto", "--out", "asked", "--set", "steps=3")
    expect(done.returncode == 64 and "asked.jsonl" in done.stderr and "fork.from=asked" in done.stderr,
           f"other problems: {done.returncode} {done.stderr}")
    done = train("asked.textproto", "--out", "asked-fork", "--set", "fork.from=asked", "--set", "steps=3")
    expect(done.returncode == 0, f"a fork may ask others: {done.returncode} {done.stderr}")


# A folder that holds a model is not made a run: later verbs would find the old weights in it.
def check_folders_and_streams():
    write("taught.textproto", SFT)
    done = train("taught.textproto", "--out", "first", "--set", "steps=2")
    expect(done.returncode == 0, f"a first run: {done.returncode} {done.stderr}")
    shutil.copytree("first/checkpoints/step-00000002", "model")
    done = train("taught.textproto", "--out", "model")
    expect(done.returncode == 64 and "config.json" in done.stderr, f"into a model: {done.returncode} {done.stderr}")
    # With its streams closed a run writes no text into its files.
    done = subprocess.run(["sh", "-c", 'exec "$0" "$@" 0<&- 1>&- 2>&-', moebius, "train", "taught.textproto", "--out", "silent"])
    expect(done.returncode == 73, f"what it says at the end has nowhere to go: {done.returncode}")
    with open("silent/lock") as f:
        lock = f.read()
    expect(re.fullmatch(r"process \d+ on \S+\n", lock), f"the lock of a run without streams: {lock!r}")


# A run that has begun has all that it needs of init.from in its checkpoints.
def check_runs_without_their_beginning():
    write("taught.textproto", SFT)
    done = train("taught.textproto", "--out", "before", "--set", "steps=2")
    expect(done.returncode == 0, f"a run to begin from: {done.returncode} {done.stderr}")
    shutil.copytree("before/checkpoints/step-00000002", "base")
    os.remove("base/manifest.json")
    config = json.load(open("base/config.json"))
    ends = [config["eos_token_id"], 3]
    write("base/generation_config.json", json.dumps({"eos_token_id": ends}))
    begun = SFT[SFT.index("precision"):].replace('tokenizer: "symbols:0123456789sort ="', 'init { from: "base" }')
    write("begun.textproto", begun + 'new_token: "<more>"\n')
    for name, steps in (("whole", 3), ("begun", 2)):
        done = train("begun.textproto", "--out", name, "--set", f"steps={steps}")
        expect(done.returncode == 0, f"{name}: {done.returncode} {done.stderr}")
    said = json.load(open("begun/checkpoints/latest/generation_config.json"))
    expect(said["eos_token_id"] == ends, f"ends of texts that the base has: {ends}, its checkpoint: {said}")
    shutil.copytree("begun", "begun-too", symlinks=True)
    os.rename("base", "gone")
    done = train("begun.textproto", "--out", "begun", "--set", "steps=3")
    expect(done.returncode == 0, f"without its beginning: {done.returncode} {done.stderr}")
    weights = [open(f"{run}/checkpoints/step-00000003/model.safetensors", "rb").read() for run in ("whole", "begun")]
    expect(weights[0] == weights[1], "without its beginning a run comes to other weights")
    with open("begun/recipe.resolved.textproto") as f:
        expect('from: "base"' in f.read(), "the run's recipe names its beginning no more")
    done = train("begun.textproto", "--out", "forked", "--set", "fork.from=begun", "--set", "steps=4")
    expect(done.returncode == 0, f"a fork without its beginning: {done.returncode} {done.stderr}")
    done = train("begun.textproto", "--out", "new")
    expect(done.returncode == 66 and "base" in done.stderr, f"a new run without one: {done.returncode} {done.stderr}")
    # Others lie there now: the run goes on with its own, and says so.
    shutil.copytree("gone", "base")
    done = train("begun.textproto", "--out", "begun-too", "--set", "steps=3")
    expect(done.returncode == 0 and "other weights" not in done.stderr, f"the same lie there: {done.stderr}")
    with open("base/model.safetensors", "r+b") as f:  # of the same shapes
        f.seek(-3, os.SEEK_END)
        f.write(b"\x01")
    done = train("begun.textproto", "--out", "begun-too", "--set", "steps=4")
    expect(done.returncode == 0 and "init.from base has other weights now" in done.stderr,
           f"others lie there: {done.returncode} {done.stderr}")


# A schedule that is laid over all steps moves with their number, which nobody may have meant.
def check_moved_learning_rates():
    write("falls.textproto", SFT.replace("optimizer {", "optimizer { schedule: COSINE min_lr: 1e-5"))
    write("taught.textproto", SFT)
    for recipe, moves in (("falls", True), ("taught", False)):
        for steps in (4, 4, 8):
            done = train(f"{recipe}.textproto", "--out", f"rate-{recipe}", "--set", f"steps={steps}")
            said = "the learning rate of step 5 is" in done.stderr
            expect(done.returncode == 0 and said == (moves and steps == 8), f"{recipe}, {steps} steps: {done.stderr}")


def check_timelines():
    write("taught.textproto", SFT)
    done = train("taught.textproto", "--out", "drawn", "--timeline", "nowhere/t.html")
    expect(done.returncode == 73 and "--timeline" in done.stderr and not os.path.exists("drawn"),
           f"a timeline that cannot be written is refused at once: {done.returncode} {done.stderr}")
    if os.geteuid() == 0:  # who may write anywhere finds out later
        done = train("taught.textproto", "--out", "drawn", "--timeline", "/proc/t.html", "--set", "steps=4")
        expect(done.returncode == 0 and "warning: no timeline" in done.stdout and rows("drawn/metrics.jsonl")[-1]["step"] == 4,
               f"a step that cannot be drawn counts: {done.returncode} {done.stdout} {done.stderr}")
    stage = SFT[SFT.index("precision"):].replace('tokenizer: "symbols:0123456789sort ="', "")
    write("more.textproto", stage)
    write("pipe.textproto", 'task: PIPELINE stage { name: "one" recipe: "taught.textproto" } '
                            'stage { name: "two" recipe: "more.textproto" }')
    done = train("pipe.textproto", "--out", "pipe", "--timeline", "t.html")
    expect(done.returncode == 0 and os.path.exists("t-01-one.html") and os.path.exists("t-02-two.html"),
           f"each stage is drawn: {done.returncode} {done.stdout} {done.stderr}")
    write("taught.textproto", SFT.replace("steps: 6", "steps: 7"))
    done = train("pipe.textproto", "--out", "pipe")
    expect(done.returncode == 0 and "other weights now than when pipe/02-two began" in done.stderr,
           f"a stage whose beginning has moved: {done.returncode} {done.stderr}")


# A fork that has saved nothing yet begins where it began: its rows are written again, not twice.
def check_forks():
    write("taught.textproto", SFT)
    done = train("taught.textproto", "--out", "parent")
    expect(done.returncode == 0, f"SFT ends with {done.returncode}: {done.stderr}")
    fork = ("taught.textproto", "--out", "fork", "--set", "fork.from=parent")
    killed = subprocess.Popen([moebius, "train", *fork, "--set", "steps=1000000"], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    metrics, end = "fork/metrics.jsonl", time.time() + 30
    while time.time() < end and not (os.path.exists(metrics) and os.path.getsize(metrics) > 500):
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    with open(metrics) as f:
        before = len(f.readlines())
    expect(before > 1, "the fork was killed too early")
    done = train(*fork, "--set", "steps=12")
    expect(done.returncode == 0, f"the fork ends with {done.returncode}: {done.stderr}")
    steps = [row["step"] for row in rows(metrics)]
    expect(steps == list(range(7, 13)), f"steps of the fork: {steps}")
    done = train("taught.textproto", "--out", "parent", "--set", "fork.from=fork", "--set", "steps=9")
    expect(done.returncode == 0 and "fork.from" in done.stderr, f"a fork into a run: {done.returncode} {done.stderr}")
    done = train("taught.textproto", "--out", "parent", "--set", "fork.from=fork", "--set", "steps=10")
    expect(done.returncode == 0 and "fork.from" not in done.stderr, f"it was said once: {done.returncode} {done.stderr}")
    done = train(*fork, "--set", "steps=14")
    steps = [row["step"] for row in rows(metrics)]
    expect(done.returncode == 0 and steps == list(range(7, 15)), f"resumed: {steps}, {done.stderr}")


with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    check_reinforced()
    check_flat_steps()
    check_folders_and_streams()
    check_forks()
    check_runs_without_their_beginning()
    check_moved_learning_rates()
    check_timelines()
    check_resolved_recipes()
    check_data_is_the_same()
    os.chdir("/")
print(f"{len(failures)} failures")
sys.exit(bool(failures))
