#!/usr/bin/env python3
"""How soon is the program there? `moebius --help`, and the first step of a recipe (its data must exist, so run it where the recipe trains).
Usage: start_bench.py MOEBIUS [RECIPE]"""
import os
import subprocess
import sys
import tempfile
import time

moebius = os.path.abspath(sys.argv[1])


def help_seconds():
    start = time.perf_counter()
    subprocess.run([moebius, "--help"], check=True, capture_output=True)
    return time.perf_counter() - start


def first_step_seconds(recipe):
    """From the start of the program to the first line of the run's metrics."""
    with tempfile.TemporaryDirectory() as folder:
        metrics = os.path.join(folder, "run", "metrics.jsonl")
        start = time.perf_counter()
        process = subprocess.Popen([moebius, "train", recipe, "--out", os.path.join(folder, "run")], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        while process.poll() is None and not (os.path.exists(metrics) and os.path.getsize(metrics)):
            time.sleep(0.005)
        seconds = time.perf_counter() - start
        if process.poll() is not None:
            sys.exit(f"{recipe} ended with exit code {process.returncode} before its first step")
        process.kill()
        process.wait()
        return seconds


def spread(times):
    return f"best {min(times) * 1e3:.0f} ms, worst {max(times) * 1e3:.0f} ms of {len(times)}"


print("moebius --help:", spread([help_seconds() for _ in range(15)]))
if len(sys.argv) > 2:
    print(f"first step of {sys.argv[2]}:", spread([first_step_seconds(sys.argv[2]) for _ in range(5)]))
