"""Imports SmolLM2's GGUF file, scores golden texts and continues golden chats greedily.
Usage: smollm2_test.py MOEBIUS FILE.gguf GOLDEN_FOLDER"""
import json
import os
import subprocess
import sys
import tempfile

TOLERANCE = 1e-3  # of a natural log-probability in fp32


def lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def ids_file(folder, name, sequences):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"ids": ids}) + "\n" for ids in sequences)
    return path


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def main(moebius, gguf, golden):
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "smollm2")
        print(run(moebius, "import", gguf, model), end="")

        wanted = lines(os.path.join(golden, "score.jsonl"))
        tokens = ids_file(folder, "score.jsonl", [line["ids"] for line in wanted])
        scored = [json.loads(line) for line in run(moebius, "score", model, "--tokens", tokens).splitlines()]
        assert len(scored) == len(wanted), f"{len(scored)} answers to {len(wanted)} lines"
        worst, count = 0.0, 0
        for want, got in zip(wanted, scored):
            assert len(want["logprobs"]) == len(got["logprobs"]) == len(want["ids"]) - 1
            worst = max([worst] + [abs(a - b) for a, b in zip(want["logprobs"], got["logprobs"])])
            count += len(got["logprobs"])
        print(f"{count} log-probabilities, largest difference {worst:.3g}")
        assert worst < TOLERANCE, f"{worst} is not below {TOLERANCE}"

        chats = lines(os.path.join(golden, "greedy.jsonl"))
        prompts = ids_file(folder, "greedy.jsonl", [line["prompt_ids"] for line in chats])
        answers = run(moebius, "generate", model, "--batch", prompts, "--temperature", "0", "--max-new", "40",
                      "--compute", "fp32")
        answers = [json.loads(line) for line in answers.splitlines()]
        equal = sum(want["new_ids"] == got["ids"] for want, got in zip(chats, answers))
        print(f"{equal} of {len(chats)} greedy answers are equal")
        assert len(answers) == len(chats) == equal


if __name__ == "__main__":
    main(*sys.argv[1:])
