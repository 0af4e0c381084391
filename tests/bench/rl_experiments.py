"""The reinforcement recipes over several seeds, as one table.

    python3 tests/bench/rl_experiments.py MOEBIUS OUT [NAME ...]

NAME: sort add sort_moe coin dense_reward no_signal countdown r1 distill distill_logits multiply (default: all, about 50 minutes
on two cores); multiply needs models/smollm2 (recipes/rl/multiply_smollm2.textproto says how to get it). Every figure is greedy accuracy on held-out problems with half its 95 % interval, and the wall time of all stages.
"""

import json
import pathlib
import subprocess
import sys
import time

RECIPES = pathlib.Path(__file__).resolve().parents[2] / "recipes" / "rl"


def last_eval(folder):
    """Key, value and half interval of a run's first and last evaluation."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows = [r for r in rows if any(k.startswith("eval/") for k in r)]
    key = next(k for k in rows[-1] if k.startswith("eval/") and not k.endswith("_ci"))
    return rows[0].get(key), rows[-1][key], rows[-1].get(key + "_ci", 0.0), rows[-1].get(key + "_pass1")


def run(moebius, recipe, out, *sets):
    command = [moebius, "train", str(RECIPES / recipe), "--out", str(out)]
    for s in sets:
        command += ["--set", s]
    begin = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    return done, time.monotonic() - begin


def stages(out):
    return sorted(p for p in out.iterdir() if (p / "metrics.jsonl").exists())


def pipeline(moebius, name, out, seeds, *sets):
    finals = []
    for seed in seeds:
        folder = out / f"{name}-{seed}"
        done, seconds = run(moebius, f"{name}.textproto", folder, f"seed={seed}", *sets)
        if done.returncode != 0:
            print(f"| {name} | {seed} | exit {done.returncode}: {done.stderr.strip()[-200:]} | |", flush=True)
            continue
        parts = []
        for stage in stages(folder):
            rows = (stage / "metrics.jsonl").read_text()
            if "eval/" not in rows:
                continue
            _, value, half, _ = last_eval(stage)
            parts.append(f"{stage.name[3:]} {value:.3f} ± {half:.3f}")
        finals.append(value)
        print(f"| {name} | {seed} | {', '.join(parts)} | {seconds:.0f} s |", flush=True)
    if len(finals) > 1:
        mean = sum(finals) / len(finals)
        spread = (sum((f - mean) ** 2 for f in finals) / (len(finals) - 1)) ** 0.5
        print(f"| {name} | mean | {mean:.3f} ± {1.96 * spread / len(finals) ** 0.5:.3f} over seeds | |", flush=True)


def single(moebius, recipe, out, seeds, *sets):
    for seed in seeds:
        folder = out / f"{recipe}-{seed}"
        done, seconds = run(moebius, f"{recipe}.textproto", folder, f"seed={seed}", *sets)
        if done.returncode != 0:
            text = " ".join(done.stderr.split())[-240:]
            print(f"| {recipe} | {seed} | exit {done.returncode}: ...{text} | {seconds:.0f} s |", flush=True)
            continue
        first, value, half, pass1 = last_eval(folder)
        sampled = "" if pass1 is None else f", pass@1 {pass1:.3f}"
        print(f"| {recipe} | {seed} | {first:.3f} → {value:.3f} ± {half:.3f}{sampled} | {seconds:.0f} s |", flush=True)


def sft_alone(moebius, name, out, seeds):
    """The recipe's first stage for as long as all its stages took."""
    for seed in seeds:
        rows = [(s / "metrics.jsonl").read_text().splitlines() for s in stages(out / f"{name}-{seed}")]
        seconds = [max(json.loads(line).get("time_s", 0) for line in stage) for stage in rows]
        steps = max(json.loads(line)["step"] for line in rows[0])
        more = round(steps * sum(seconds) / seconds[0])
        single(moebius, f"{name}_sft", out, [seed], f"steps={more}")


def main():
    moebius, out = sys.argv[1], pathlib.Path(sys.argv[2])
    names = sys.argv[3:] or ["sort", "add", "sort_moe", "coin", "dense_reward", "no_signal", "countdown", "r1", "distill",
                             "distill_logits", "multiply"]
    out.mkdir(parents=True, exist_ok=True)
    print("| recipe | seed | accuracy | wall time |\n| --- | --- | --- | --- |")
    for name in names:
        if name in ("sort", "sort_moe"):
            pipeline(moebius, name, out, range(4))
        elif name == "add":
            pipeline(moebius, name, out, range(3))
        elif name == "countdown":
            pipeline(moebius, name, out, range(3))
            sft_alone(moebius, name, out, range(3))
        elif name == "coin":
            start = out / "sort-0" / "01-sft" / "checkpoints" / "latest"
            single(moebius, "sort_coin", out, [0], f'init.from="{start}"')
        elif name == "dense_reward":
            single(moebius, "sort3_dense_reward", out, range(3))
        elif name == "multiply":
            single(moebius, "multiply_smollm2", out, range(3))
        elif name == "no_signal":
            single(moebius, "sort3_no_signal", out, [0])
        elif name == "r1":
            pipeline(moebius, "sort_r1", out, [0])
        elif name in ("distill", "distill_logits"):
            teacher = out / "sort-0" / "02-grpo" / "checkpoints" / "latest"
            if not teacher.exists():
                sys.exit(f"{name} needs sort first")
            link = pathlib.Path("runs") / "sort"
            if not link.exists():
                link.parent.mkdir(exist_ok=True)
                link.symlink_to((out / "sort-0").resolve())
            pipeline(moebius, f"sort_{name}", out, [0])


main()
