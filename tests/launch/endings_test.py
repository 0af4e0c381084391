#!/usr/bin/env python3
"""How runs of `moebius train` end, on one rank and on several: what is saved, which rank says why, what is refused before
the first step. Usage: endings_test.py MOEBIUS [MPIRUN MOEBIUS_PROCESSES]"""
import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

moebius = os.path.abspath(sys.argv[1])
mpirun, processes = (os.path.abspath(path) for path in sys.argv[2:4]) if len(sys.argv) > 2 else (None, None)
failures = []
MODEL = """
model {
  model_type: "qwen3" hidden_size: 16 intermediate_size: 32 num_hidden_layers: 1
  num_attention_heads: 2 num_key_value_heads: 1 head_dim: 8 max_position_embeddings: 64 %s
}
precision { compute: FP32 }
threads: 1
checkpoint { every_steps: 0 }
log { every_steps: 1 }
"""
TEXTS = MODEL % "vocab_size: 300" + """
name: "texts" task: PRETRAIN seed: 3
data { train: "data/train.h5" validation: "data/val.h5" }
batch { sequences: 4 sequence_length: 32 }
steps: 8
optimizer { lr: 1e-3 }
validate { max_tokens: 256 }
"""
# Decay that throws the weights so far in steps 4 to 7 that step 8 overflows.
OVERFLOW = """
optimizer {
  schedule: V3_PIECEWISE weight_decay: 100
  phase { steps: 3 from_lr: 1e-3 to_lr: 1e-3 } phase { steps: 10 from_lr: 100 to_lr: 100 }
}
"""
SORT = MODEL % "" + """
tokenizer: "symbols:0123456789sort ="
problems { kind: "sort" sort_length: 2 }
batch { sequences: 4 sequence_length: 16 }
rl { max_new: 3 }
evaluate { problems: 4 }
steps: 8
"""
# No answer repeats itself: all rewards are equal.
NO_SIGNAL = SORT.replace("rl {", "rl { group_size: 4 no_signal_steps: 3") + 'task: GRPO reward { part { name: "repetition" } }\n'


def check(condition, text):
    print(("ok    " if condition else "FAIL  ") + text, flush=True)
    if not condition:
        failures.append(text)


def overflow():
    return TEXTS.replace("optimizer { lr: 1e-3 }", OVERFLOW)


def write(name, text):
    with open(name, "w") as file:
        file.write(text)
    return name


def run(command, **kwargs):
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **kwargs)


def train(recipe, out, *extra, ranks=()):
    return run([*ranks, moebius, "train", recipe, "--out", out, *extra])


def errors(result):
    return [line for line in result.stderr.splitlines() if "error:" in line]


def checkpoints(out):
    return sorted(os.path.basename(path) for path in glob.glob(f"{out}/checkpoints/step-*"))


def rows_of(out):
    return [json.loads(line) for line in open(f"{out}/metrics.jsonl")]


def ways(ranks):
    """How several ranks are started as processes."""
    return {"mpirun": [mpirun, "--oversubscribe", "--allow-run-as-root", "--quiet", "-np", str(ranks)],
            "moebius-processes": [processes, str(ranks)]} if mpirun else {}


def last_step_is_bad():
    recipe = write("overflow.textproto", overflow())
    done = train(recipe, "bad")
    check("step 8 skipped" in done.stdout + done.stderr, "the last of 8 steps gives NaN")
    check(done.returncode == 0 and checkpoints("bad") == ["step-00000008"] and os.path.exists("bad/checkpoints/latest"),
          f"a run whose last step is bad keeps the last good state: exit {done.returncode} {checkpoints('bad')}")
    rows = rows_of("bad")
    check("val/loss" in rows[-1], f"and judges it: {sorted(rows[-1])}")
    weights = run([moebius, "inspect", "bad/checkpoints/latest"])
    check(weights.returncode == 0, f"the checkpoint is whole {weights.stderr.strip()}")
    enough = train(recipe, "enough", "--set", "max_bad_steps=1")
    check(enough.returncode == 76 and checkpoints("enough") == [],
          f"one bad step too many ends with 76 and is not kept: exit {enough.returncode} {checkpoints('enough')}")


def fork_has_a_best_of_its_own():
    recipe = write("fork.textproto", TEXTS)
    parent = train(recipe, "parent", "--set", "optimizer.lr=0.01")
    check(parent.returncode == 0, f"a parent {parent.stderr.strip()}")
    # Worse than the parent ever was.
    fork = train(recipe, "fork", "--set", "fork.from=parent", "--set", "steps=10", "--set", "optimizer.lr=1",
                 "--set", "checkpoint.keep_best=true")
    best = [rows_of(out)[-1]["val/loss"] for out in ("parent", "fork")]
    check(fork.returncode == 0 and best[1] > best[0], f"a fork that is worse than its parent: {best} {fork.stderr.strip()}")
    check(os.path.exists("fork/checkpoints/best"), "has a best checkpoint of its own")


def refused_at_the_start():
    refused = train(write("prefetch.textproto", TEXTS.replace("data {", "data { prefetch_batches: 0")), "prefetch")
    check(refused.returncode == 64 and "data.prefetch_batches" in refused.stderr,
          f"no batch ahead of time: exit {refused.returncode} {refused.stderr.strip()[:200]}")

    recipe = write("start.textproto", TEXTS.replace("data/val.h5", "data/none.h5"))
    os.makedirs("there", exist_ok=True)
    for out in ("new/run", "there"):
        for ranks in ("1", "2"):
            refused = train(recipe, out, "--ranks", ranks)
            check(refused.returncode == 66 and "none.h5" in refused.stderr, f"a failed start: exit {refused.returncode}")
    check(not os.path.exists("new"), "leaves no new folder")
    check(os.listdir("there") == [], "but one that was there before, as it was")

    # A token file that carries no tokenizer, and samples that want one.
    os.makedirs("plain", exist_ok=True)
    for name in ("train.h5", "val.h5"):
        content = open(f"data/{name}", "rb").read()
        check(content.count(b"tokenizer_json") > 0, f"{name} carries a tokenizer")
        open(f"plain/{name}", "wb").write(content.replace(b"tokenizer_json", b"tokenizer_xxxx"))
    sample = TEXTS.replace("data/", "plain/") + 'sample { every_steps: 100 prompts: "A" }'
    refused = train(write("sample.textproto", sample), "sample")
    check(refused.returncode == 64 and "no tokenizer is known" in refused.stderr and "step 1" not in refused.stdout,
          f"samples without a tokenizer: exit {refused.returncode} before the first step: {refused.stderr.strip()}"
          f"{refused.stdout[-300:]}")


def other_texts():
    recipe = write("texts-change.textproto", TEXTS)
    first = train(recipe, "texts-change", "--set", "steps=4")
    before = sorted(os.listdir("texts-change/checkpoints"))
    built = run([moebius, "data", "build", "--text", "text", "--held-out", "text/2.txt", "--tokenizer", "data/tokenizer.json",
                 "--out", "more"])
    check(first.returncode == 0 and built.returncode == 0, f"a run, and other data of its tokenizer {built.stderr.strip()}")
    os.rename("data", "data-kept")
    os.rename("more", "data")
    resumed = train(recipe, "texts-change")
    os.rename("data", "more")
    os.rename("data-kept", "data")
    check(resumed.returncode == 64 and "other tokens" in resumed.stderr
          and sorted(os.listdir("texts-change/checkpoints")) == before,
          f"going on with it: exit {resumed.returncode} {resumed.stderr.strip()}")
    resumed = train(recipe, "texts-change")
    check(resumed.returncode == 0, f"going on with the data of the start: exit {resumed.returncode} {resumed.stderr.strip()}")


def generate_refuses_without_a_word():
    done = run([moebius, "generate", "texts-change", "--prompt", "A", "--max-new", "1000"])
    check(done.returncode == 64 and not done.stdout and "64 positions" in done.stderr,
          f"an answer longer than the model: exit {done.returncode} {done.stdout!r} {done.stderr.strip()}")
    done = run([moebius, "generate", "texts-change", "--batch", write("promt.jsonl", '{"promt": "A"}\n')])
    check(done.returncode == 65 and not done.stdout and 'no field "promt"' in done.stderr,
          f"a line without a prompt: exit {done.returncode} {done.stderr.strip()}")


def another_tokenizer():
    recipe = write("same.textproto", TEXTS)
    first = train(recipe, "same", "--set", "steps=4")
    built = run([moebius, "data", "build", "--text", "text", "--held-out", "text/3.txt", "--vocab-size", "280", "--out",
                 "other"])
    check(first.returncode == 0 and built.returncode == 0, f"a run, and data of another tokenizer {built.stderr.strip()}")
    before = sorted(os.listdir("same/checkpoints"))
    other = ["--set", 'data.train="other/train.h5"', "--set", 'data.validation="other/val.h5"']
    os.rename("data", "data-kept")
    os.rename("other", "data")  # as data build does that is run again with another vocabulary
    resumed = train(recipe, "same")
    os.rename("data", "other")
    os.rename("data-kept", "data")
    check(resumed.returncode == 64 and "another tokenizer" in resumed.stderr and sorted(os.listdir("same/checkpoints")) == before,
          f"going on with it: exit {resumed.returncode} {resumed.stderr.strip()}")
    begun = train(recipe, "begun", "--set", 'init.from="same"', *other)
    check(begun.returncode == 64 and "another tokenizer" in begun.stderr,
          f"beginning from weights of another: exit {begun.returncode} {begun.stderr.strip()}")
    judged = train(recipe, "judged", "--set", 'data.validation="other/val.h5"')
    check(judged.returncode == 64 and "data.validation" in judged.stderr,
          f"validating with another: exit {judged.returncode} {judged.stderr.strip()}")


def lost_marks():
    recipe = write("marks.textproto", TEXTS)
    keep = ["--set", "checkpoint.keep_best=true", "--set", "validate.every_steps=2", "--set", "optimizer.lr=0.01"]
    first = train(recipe, "marks", "--set", "steps=4", *keep)
    check(first.returncode == 0 and os.readlink("marks/checkpoints/best") == "step-00000004", "a run and its best step")
    done = train(recipe, "marks", "--set", "steps=4", *keep)
    check(done.returncode == 0 and "nothing to do" in done.stdout and "report:" in done.stdout, f"nothing to do: {done.stdout}")
    # As a copy without links has it, and as a kill between the checkpoint and its marks leaves it.
    os.remove("marks/checkpoints/latest")
    os.remove("marks/checkpoints/best")
    resumed = train(recipe, "marks", "--set", "steps=5", "--set", "validate.every_steps=0",
                    "--set", "data.validation=\"\"", *keep[:2], *keep[4:])
    check(resumed.returncode == 0 and "step 5/5" in resumed.stdout and "step 1/" not in resumed.stdout,
          f"goes on from step 4: {resumed.stdout} {resumed.stderr}")
    check(os.path.islink("marks/checkpoints/best") and os.readlink("marks/checkpoints/best") == "step-00000004",
          "and marks the best step again")


def damaged_copies():
    """What a copy or a crash has done to a run folder is named, with what to do, which then helps."""
    recipe = write("copied.textproto", TEXTS)
    first = train(recipe, "copied", "--set", "steps=4")
    check(first.returncode == 0, f"a run {first.stderr.strip()}")
    shutil.copytree("copied", "copy", symlinks=False)
    for link in [name for name in ("latest", "best") if os.path.isdir(f"copy/checkpoints/{name}")]:
        refused = train(recipe, "copy", "--set", "steps=5")
        check(refused.returncode == 65 and f"copy/checkpoints/{link} is no link" in refused.stderr, f"no link: {refused.stderr.strip()}")
        shutil.rmtree(f"copy/checkpoints/{link}")
    lines = open("copy/metrics.jsonl").read().split("\n")
    open("copy/metrics.jsonl", "w").write("\n".join([lines[0], "\0" * 40, *lines[2:]]))
    refused = train(recipe, "copy", "--set", "steps=5")
    command = re.search(r"remove that line: (sed -i 2d 'copy/metrics.jsonl')", refused.stderr)
    check(refused.returncode == 65 and command, f"a line of NULs: exit {refused.returncode} {refused.stderr.strip()}")
    if command:
        subprocess.run(command[1], shell=True, check=True)
    resumed = train(recipe, "copy", "--set", "steps=5")
    check(resumed.returncode == 0 and "step 5/5" in resumed.stdout and "step 1/" not in resumed.stdout,
          f"goes on without them {resumed.stderr.strip()}")


def strangers_at_the_port():
    """Whoever else connects to the port of rank 0 is sent away."""
    recipe = write("strangers.textproto", TEXTS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = []
    for rank in range(2):
        environment = dict(os.environ, MOEBIUS_RANK=str(rank), MOEBIUS_WORLD_SIZE="2", MOEBIUS_MASTER=f"127.0.0.1:{port}")
        ranks.append(subprocess.Popen([moebius, "train", recipe, "--out", "strangers"], env=environment,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
        for word in (b"", b"GET / HTTP/1.1\r\nHost: here\r\n\r\n") if rank == 0 else ():
            until = time.time() + 20
            while time.time() < until:
                try:
                    with socket.create_connection(("127.0.0.1", port)) as stranger:
                        stranger.sendall(word)
                    break
                except ConnectionRefusedError:
                    time.sleep(0.05)
    said = [process.communicate(timeout=60)[1] for process in ranks]
    codes = [process.returncode for process in ranks]
    check(codes == [0, 0], f"strangers at the port of rank 0: {codes} {said}")


def best_is_marked_before_others_go():
    """A run that gets better at every step keeps the newest checkpoint, which both links name, and the one before, which
    this step has proven good."""
    recipe = write("better.textproto", TEXTS.replace("validate {", "validate { every_steps: 1"))
    flags = ["--set", "optimizer.lr=0.01", "--set", "checkpoint.every_steps=1", "--set", "checkpoint.keep=1"]
    for steps in (1, 2, 4):
        done = train(recipe, "better", "--set", f"steps={steps}", *flags)
        losses = [row["val/part_loss"] for row in rows_of("better")]
        check(done.returncode == 0 and losses == sorted(losses, reverse=True), f"better and better: {losses}")
        links = [os.readlink(f"better/checkpoints/{link}") for link in ("latest", "best")]
        kept = [f"step-{step:08d}" for step in range(max(1, steps - 1), steps + 1)]
        check(checkpoints("better") == kept and links == 2 * kept[-1:],
              f"after step {steps} its checkpoint and the one before are kept: {checkpoints('better')}, latest and best {links}")


def full_disk_on_one_rank():
    recipe = write("full.textproto", TEXTS)
    flags = ["--set", "parallel.data=2"]
    start = write("limit.sh", '[ "${OMPI_COMM_WORLD_RANK:-$MOEBIUS_RANK}" = 1 ] && ulimit -f 8\nexec "$@"\n')
    for way, ranks in ways(2).items():
        out = f"full-{way}"
        first = train(recipe, out, "--set", "steps=2", *flags, ranks=ranks)
        check(first.returncode == 0 and checkpoints(out) == ["step-00000002"], f"{way}: two steps {first.stderr.strip()}")
        full = run([*ranks, "sh", start, moebius, "train", recipe, "--out", out, "--set", "steps=4", *flags])
        check(full.returncode == 73 and any("rank 1" in line and "-00002-of-" in line and "ulimit -f" in line for line in errors(full)),
              f"no room for what rank 1 writes: exit {full.returncode} {errors(full)}")
        check(sorted(os.listdir(f"{out}/checkpoints")) == ["best", "latest", "step-00000002"] and
              os.readlink(f"{out}/checkpoints/latest") == "step-00000002",
              f"the last good checkpoint stays and nothing else: {sorted(os.listdir(f'{out}/checkpoints'))}")
        done = train(recipe, out, "--set", "steps=4", *flags, ranks=ranks)
        check(done.returncode == 0 and "step 3/4" in done.stdout, f"with room it goes on: exit {done.returncode}")


def ramp_that_does_not_divide():
    recipe = write("ramp.textproto", TEXTS.replace("sequence_length: 32 }", "sequence_length: 32 ramp { at_step: 3 to_sequences: 7 } }"))
    one = train(recipe, "ramp-one")
    four = train(recipe, "ramp-four", "--ranks", "4")
    check(one.returncode == 0, f"a batch of 7 on one rank {one.stderr.strip()}")
    check(four.returncode == 64 and "ramp" in four.stderr and "step 1" not in four.stdout,
          f"not on 4, and said before the first step: exit {four.returncode} {four.stderr.strip()}")


def pipelines():
    write("stage.textproto", SORT + "task: SFT\n")
    both = 'task: PIPELINE %s stage { name: "one" recipe: "stage.textproto" } ' \
           'stage { name: "two" recipe: "stage.textproto" %s }'
    for field, here in (("hang_limit_s", 5), ("ranks_per_node", 1), ("within_node.latency_us", 3),
                        ("between_nodes.gigabytes_per_s", 2)):
        out = f"pipe-{field}"
        other = f'set: "parallel.{field}={here}"'
        refused = train(write("pipe.textproto", both % ("", other)), out)
        check(refused.returncode == 64 and "stage two" in refused.stderr and f"parallel.{field}" in refused.stderr and
              not glob.glob(f"{out}/*/metrics.jsonl"),
              f"a stage with another {field}: exit {refused.returncode} before any stage: {refused.stderr.strip()}")
    same = train(write("pipe.textproto", both % ("parallel { hang_limit_s: 5 }", 'set: "parallel.hang_limit_s=5"')), "pipe")
    check(same.returncode == 0, f"a stage that says what the pipeline says {same.stderr.strip()}")
    plain = train("stage.textproto", "pipe")
    check(plain.returncode == 64 and "folder of a pipeline" in plain.stderr and not os.path.exists("pipe/metrics.jsonl"),
          f"a run does not move into a pipeline's folder: exit {plain.returncode} {plain.stderr.strip()}")
    train("stage.textproto", "plain")
    pipe = train("pipe.textproto", "plain")
    check(pipe.returncode == 64 and "folder of a run" in pipe.stderr and not glob.glob("plain/0*"),
          f"nor a pipeline into a run's: exit {pipe.returncode} {pipe.stderr.strip()}")


def rank_below(launcher, rank):
    """The process of a rank that moebius-processes has started."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            parent = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[1]
            if int(parent) == launcher and f"MOEBIUS_RANK={rank}" in open(f"/proc/{pid}/environ").read().split("\0"):
                return int(pid)
        except (OSError, IndexError):
            continue
    return None


def stop_while_validating(recipe, out, *extra, ranks=(), rank=None):
    """Ends the validation of the first step, or that of one rank alone; what the run said and its exit code."""
    process = subprocess.Popen([*ranks, moebius, "train", recipe, "--out", out, *extra], stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    said = ""
    # A step's line comes before its validation.
    for line in process.stdout:
        said += line
        if "step 1/" in line:
            os.kill(process.pid if rank is None else rank_below(process.pid, rank), signal.SIGTERM)
            break
    said += process.communicate(timeout=120)[0]
    return process.returncode, said


def stopped_in_validation():
    # Seconds of validation, of which the first batch is run.
    long = "".join(f"Line {i} says {'xyzab'[i % 5] * (i % 7 + 1)} and no more. " for i in range(120000))
    os.makedirs("longer")
    write("longer/0.txt", long[:20000])
    write("longer/1.txt", long[20000:])
    built = run([moebius, "data", "build", "--text", "longer", "--held-out", "longer/1.txt", "--tokenizer",
                 "data/tokenizer.json", "--out", "long"])
    check(built.returncode == 0, f"a long text to validate on {built.stderr.strip()}")
    recipe = write("validating.textproto", TEXTS.replace("num_hidden_layers: 1", "num_hidden_layers: 4")
                   .replace("validate { max_tokens: 256 }", "validate { every_steps: 1 }"))
    long_text = ["--set", 'data.validation="long/val.h5"']
    launches = [("one process", (), None)] + ([("rank 1 of 2", [processes, "2"], 1)] if processes else [])
    for what, ranks, rank in launches:
        for steps in (3, 1):
            out = f"validating-{len(ranks)}-{steps}"
            code, said = stop_while_validating(recipe, out, *long_text, "--set", f"steps={steps}", ranks=ranks, rank=rank)
            rows = rows_of(out)
            check(code == 75 and "validation loss" not in said and "val/loss" not in rows[-1] and
                  checkpoints(out) == ["step-00000001"],
                  f"{what}, step 1 of {steps}, told to stop while validating: exit {code} {checkpoints(out)} {said[-300:]}")
            resumed = train(recipe, out, "--set", f"steps={steps}")
            rows = [(row["step"], "val/loss" in row, "train/loss" in row) for row in rows_of(out)]
            check(resumed.returncode == 0 and rows == [(1, False, True), (1, True, False)] +
                  [(step, True, True) for step in range(2, steps + 1)],
                  f"validates first when it goes on: exit {resumed.returncode} {rows} {resumed.stderr.strip()}")
            best = min((row for row in rows_of(out) if "val/loss" in row), key=lambda row: row["val/loss"])["step"]
            check(os.readlink(f"{out}/checkpoints/best") == f"step-{best:08d}", f"and knows its best step {best}")
            again = train(recipe, out, "--set", f"steps={steps}")
            check(again.returncode == 0 and "nothing to do" in again.stdout, "once")


def all_ranks_fail_together():
    for recipe, words in ((write("signal.textproto", NO_SIGNAL), "no signal"),
                          (write("bad.textproto", overflow() + "max_bad_steps: 1"), "NaN")):
        for way, ranks in ways(2).items():
            out = f"{recipe}-{way}"
            ended = train(recipe, out, ranks=ranks)
            check(ended.returncode == 76 and len(errors(ended)) == 1 and words in errors(ended)[0],
                  f"{words}, {way}: exit {ended.returncode}, one rank says so: {errors(ended)}")
            check(os.path.exists(f"{out}/report.html"), "and rank 0 finished its report")


def one_rank_fails():
    """Rank 3 stands in a folder whose token file breaks off in the middle of the run."""
    recipe = write("alone.textproto", TEXTS)
    os.makedirs("broken/data", exist_ok=True)
    for name in ("train.h5", "val.h5"):
        content = bytearray(open(f"data/{name}", "rb").read())
        if name == "train.h5":
            for i in range(len(content) // 2, len(content) // 2 + 4096):
                content[i] ^= 0x5A
        open(f"broken/data/{name}", "wb").write(content)
    path, out = os.path.abspath(recipe), os.path.abspath("alone")
    start = write("start.sh", '[ "${OMPI_COMM_WORLD_RANK:-$MOEBIUS_RANK}" = 3 ] && cd broken\nexec "$@"\n')
    for way, ranks in ways(4).items():
        ended = run([*ranks, "sh", start, moebius, "train", path, "--out", f"{out}-{way}", "--set", "steps=100000", "--set", "data.shuffle=false"])
        said = errors(ended)
        # Over TCP rank 0 may see the connection end before it hears why.
        check(ended.returncode == 65 and any("train.h5" in line for line in said)
              and all("train.h5" in line or "rank 3 is lost" in line for line in said),
              f"an error of rank 3 alone, {way}: exit {ended.returncode}: {said} {ended.stderr.strip()[-300:]}")
        check(len(said) <= 2, "that rank says so, and rank 0 at most once more")


def folder_that_one_rank_does_not_see():
    """Rank 1 stands elsewhere: a checkpoint would need its part."""
    recipe = os.path.abspath(write("seen.textproto", SORT + "task: SFT\n"))
    os.makedirs("elsewhere", exist_ok=True)
    start = write("elsewhere.sh", '[ "${OMPI_COMM_WORLD_RANK:-$MOEBIUS_RANK}" = 1 ] && cd elsewhere\nexec "$@"\n')
    for way, ranks in ways(2).items():
        ended = run([*ranks, "sh", start, moebius, "train", recipe, "--out", f"seen-{way}"])
        said = errors(ended)
        check(ended.returncode == 73 and len(said) in (1, 2) and f"does not see rank 0's run folder seen-{way}" in said[0],
              f"before the first step, {way}: exit {ended.returncode}: {said}")


def timing_on_ranks():
    missing, layout = write("r.textproto", TEXTS), ["--set", "parallel.expert=2"]
    for way, ranks in ways(2).items():
        for command in (["nothing.textproto"], [missing, *layout]):
            ended = run([*ranks, moebius, "bench", "train", *command])
            said = errors(ended)
            check(ended.returncode in (64, 66) and len(said) == 1, f"bench train {command}, {way}: {ended.returncode}: {said}")


def one_rank_is_killed():
    """Without MPI: what the launcher returns, and what a rank does by itself whose peer is gone."""
    recipe = write("killed.textproto", TEXTS)

    def kill_rank_1(processes_of_job, out, pid):
        until = time.time() + 60
        while not os.path.exists(f"{out}/metrics.jsonl") and time.time() < until:
            time.sleep(0.02)
        os.kill(pid(), signal.SIGKILL)
        return [p.communicate(timeout=60) for p in processes_of_job]

    def child_that_is_rank_1(parent):
        for pid in open(f"/proc/{parent}/task/{parent}/children").read().split():
            if "MOEBIUS_RANK=1" in open(f"/proc/{pid}/environ").read().split("\0"):
                return int(pid)

    command = [moebius, "train", recipe, "--set", "steps=100000", "--out"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    job = subprocess.Popen([processes, "2", *command, "killed-job"], **pipes)
    (_, said), = kill_rank_1([job], "killed-job", lambda: child_that_is_rank_1(job.pid))
    check(job.returncode == 79 and "rank 1 was killed" in said, f"a killed rank, moebius-processes: exit {job.returncode} {said}")

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [subprocess.Popen([*command, "killed-peer"], env=dict(os.environ, MOEBIUS_RANK=str(rank), MOEBIUS_WORLD_SIZE="2",
                                                                  MOEBIUS_MASTER=f"127.0.0.1:{port}"), **pipes)
             for rank in range(2)]
    (_, said), _ = kill_rank_1(ranks, "killed-peer", lambda: ranks[1].pid)
    check(ranks[0].returncode == 79 and "rank 1 is lost" in said, f"and rank 0 alone: exit {ranks[0].returncode} {said}")


def time_is_always_up():
    """A process that has no time left when it begins does the validation that is due and one step all the same."""
    recipe = write("timed.textproto", TEXTS.replace("validate {", "validate { every_steps: 2"))
    whole = train(recipe, "untimed", "--set", "steps=5")
    check(whole.returncode == 0, f"a run without a limit {whole.stderr.strip()}")
    codes = []
    while len(codes) < 12 and codes[-1:] != [0]:
        codes.append(train(recipe, "timed", "--set", "steps=5", "--set", "max_minutes=1e-6").returncode)
    check(codes == [75] * 5 + [0], f"a step each for 5 processes, the last validation for one more: {codes}")
    final = [{name: open(f"{out}/checkpoints/step-00000005/{name}", "rb").read()
              for name in ("model.safetensors", "optimizer.safetensors")} for out in ("untimed", "timed")]
    check(final[0] == final[1], "end with the same weights and moments")
    losses = [[(row["step"], row["val/part_loss"], row.get("val/loss")) for row in rows_of(out) if "val/part_loss" in row]
              for out in ("untimed", "timed")]
    check(len(losses[0]) == 3 and losses[0] == losses[1], f"and the same validations: {losses}")


def main():
    text = "".join(f"Sentence {i} says {'xyzab'[i % 5] * (i % 7 + 1)} and no more. " for i in range(1500))
    os.makedirs("text")
    for k in range(4):
        write(f"text/{k}.txt", text[k * 9000:(k + 1) * 9000])
    built = run([moebius, "data", "build", "--text", "text", "--held-out", "text/3.txt", "--vocab-size", "300", "--out",
                 "data"])
    check(built.returncode == 0, f"data build: {built.stderr.strip()}")
    for part in (last_step_is_bad, fork_has_a_best_of_its_own, refused_at_the_start, other_texts, generate_refuses_without_a_word, another_tokenizer, lost_marks, damaged_copies,
                 best_is_marked_before_others_go, full_disk_on_one_rank, ramp_that_does_not_divide, pipelines, stopped_in_validation,
                 time_is_always_up, strangers_at_the_port,
                 all_ranks_fail_together, folder_that_one_rank_does_not_see, timing_on_ranks, one_rank_fails):
        part()
    if processes:
        one_rank_is_killed()


# Some clusters set it; a test inside an allocation must not look like a rank.
for name in list(os.environ):
    if re.match(r"OMPI_COMM_|PMI|SLURM_|MOEBIUS_(RANK|WORLD_SIZE|MASTER)", name):
        del os.environ[name]
with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    main()
    os.chdir("/")
print(f"{len(failures)} failures")
sys.exit(1 if failures else 0)
