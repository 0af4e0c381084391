#!/usr/bin/env python3
"""What reinforcement, fine-tuning and preferences refuse, with which exit code and which words.
Usage: rl_refusals_test.py MOEBIUS"""
import json
import os
import subprocess
import sys
import tempfile

moebius = os.path.abspath(sys.argv[1])
failures = []
MODEL = """
model {
  model_type: "qwen3" hidden_size: 16 intermediate_size: 32 num_hidden_layers: 1 num_attention_heads: 2
  num_key_value_heads: 1 head_dim: 8 max_position_embeddings: 64
}
precision { compute: FP32 }
threads: 1
steps: 4
log { every_steps: 100 }
checkpoint { every_steps: 100 }
"""
EVALUATE = "evaluate { problems: 4 }\n"  # of tasks with problems
TOKENIZER = 'tokenizer: "symbols:0123456789sort ="\n'
SORT = 'problems { kind: "sort" sort_length: 2 }\nbatch { sequences: 4 sequence_length: 16 }\n'
RL = "rl { group_size: 4 max_new: 3 }\n"
MAX_NEW = "rl { max_new: 3 }\n"  # of tasks without groups
GRPO = MODEL + EVALUATE + "task: GRPO\n"


def check(condition, text):
    print(("ok    " if condition else "FAIL  ") + text, flush=True)
    if not condition:
        failures.append(text)


number = 0


def refuse(what, recipe, code, *words, ranks=1):
    global number
    number += 1
    open(f"r{number}.textproto", "w").write(recipe)
    run = subprocess.run([moebius, "train", f"r{number}.textproto", "--out", f"out{number}", "--ranks", str(ranks)],
                         capture_output=True, text=True, timeout=60)
    said = run.stderr.strip()
    check(run.returncode == code and all(w in said for w in words) and "error: " in said,
          f"{what}: exit {run.returncode}, wanted {code} and {words}: {said}")


def lines(name, *objects):
    with open(name, "w") as f:
        for o in objects:
            f.write((o if isinstance(o, str) else json.dumps(o)) + "\n")
    return name


def refuse_reinforcement():
    refuse("a prompt that is too long", GRPO + TOKENIZER + SORT + "rl { group_size: 4 max_new: 10 }", 64,
           "batch.sequence_length 16", "rl.max_new 10")
    refuse("a guard without a floor", GRPO + TOKENIZER + SORT + "rl { group_size: 4 max_new: 3 entropy_guard: 0.1 }", 64,
           "rl.entropy_floor")
    refuse("a floor for a cut distribution", GRPO + TOKENIZER + SORT +
           "rl { group_size: 4 max_new: 3 entropy_floor: 1 top_p: 0.9 }", 64, "rl.entropy_floor", "rl.top_p")
    refuse("a length that no answer has", GRPO + TOKENIZER + SORT + RL +
           'reward { part { name: "correct" } part { name: "overlong" max_tokens: 13 margin_tokens: 10 } }', 64, "overlong",
           "rl.max_new is 3")
    refuse("a reward that nothing reads", MODEL + "task: REJECTION\n" + TOKENIZER + SORT + RL +
           'reward { part { name: "repetition" } }', 64, "reward.part", "GRPO")
    refuse("a share above 1", GRPO + TOKENIZER + SORT.replace('kind: "sort" sort_length: 2', 'jsonl: "x" jsonl_kind: CODE') + RL +
           "reward { judge_again: 1.5 }", 64, "judge_again", "1.5", "from 0 to 1")
    refuse("the same on two ranks", GRPO + TOKENIZER + SORT + "rl { group_size: 4 max_new: 10 }", 64,
           "batch.sequence_length 16", ranks=2)
    refuse("a symbol without a token", GRPO + 'tokenizer: "symbols:0123456789sort"\n' + SORT + RL, 64, "sort/", "=")
    refuse("no problems", GRPO + TOKENIZER + "batch { sequences: 4 sequence_length: 16 }\n" + RL, 64, "problems")
    refuse("sequences longer than the model's positions", GRPO + TOKENIZER + SORT.replace("16", "100") + RL, 64,
           "batch.sequence_length", "max_position_embeddings")
    refuse("an end that is no token", GRPO.replace("head_dim: 8", "head_dim: 8 eos_token_id: 999") + TOKENIZER + SORT + RL,
           64, "eos_token_id")
    refuse("an unknown task", GRPO + TOKENIZER + SORT.replace('"sort"', '"sorting"') + RL, 64, "sorting")
    refuse("an empty split", GRPO + TOKENIZER + 'problems { kind: "sort" held_out: 1 }\n' + RL, 64, "held_out")
    refuse("no tokenizer", GRPO + SORT + RL, 64, "tokenizer")
    refuse("a tokenizer that is not there", GRPO + 'tokenizer: "nothing.json"\n' + SORT + RL, 66, "nothing.json")
    refuse("a symbol twice", GRPO + 'tokenizer: "symbols:00"\n' + SORT + RL, 64, "symbols")
    for field, value in (("group_size", "0"), ("max_new", "0"), ("temperature", "0"), ("updates", "0"), ("top_p", "0"),
                         ("top_k", "-1"), ("kl_coefficient", "-1"), ("dual_clip", "0.5"), ("temperature", "nan"),
                         ("clip_low", "-0.1"), ("refill_rounds", "-1"), ("max_batch", "0")):
        refuse(f"rl.{field} {value}", GRPO + TOKENIZER + SORT + f"rl {{ {field}: {value} }}", 64, field)
    refuse("groups of one", GRPO + TOKENIZER + SORT + "rl { group_size: 1 max_new: 3 }", 64, "rl.group_size")
    refuse("a coefficient without kl", GRPO + TOKENIZER + SORT + "rl { kl_coefficient: 0.1 }", 64, "rl.kl")
    refuse("drafts without an MTP module", GRPO + TOKENIZER + SORT + "rl { group_size: 4 max_new: 3 drafts: true }", 64,
           "rl.drafts", "MTP module")
    for rollout in ("EXACT", "INT8"):
        refuse(f"{rollout} on a GPU", "device: CUDA\n" + GRPO + TOKENIZER + SORT + RL.replace("}", f"rollout: {rollout} }}"), 64,
               "rl.rollout", "FAST")
    refuse("kl in the reward without kl", GRPO + TOKENIZER + SORT + "rl { kl_in_reward: true }", 64, "rl.kl")
    refuse("replay of routes without experts", GRPO + TOKENIZER + SORT +
           "rl { group_size: 4 max_new: 3 routing_replay: ROLLOUT }", 64, "rl.routing_replay", "n_routed_experts")
    refuse("an unknown part of the reward", GRPO + TOKENIZER + SORT + RL + 'reward { part { name: "luck" } }', 64, "luck")
    refuse("format without tags", GRPO + TOKENIZER + SORT + RL + 'reward { part { name: "format" } }', 64, "format")
    refuse("fewer prompts than ranks", GRPO + TOKENIZER + SORT.replace("sequences: 4", "sequences: 1") + RL, 64,
           "batch.sequences", ranks=2)
    refuse("a reward that is always equal",
           GRPO + TOKENIZER + SORT + 'rl { group_size: 4 max_new: 3 no_signal_steps: 3 }\n'
           'reward { part { name: "repetition" } }', 76, "no signal", "SFT")
    refuse("a reward without a weight", GRPO + TOKENIZER + SORT + RL + 'reward { part { name: "correct" weight: 0 } }', 64,
           "reward.part", "weight")


def refuse_files():
    batch = "batch { sequences: 2 sequence_length: 64 }\n" + 'tokenizer: "bytes"\n' + RL
    jsonl = 'problems {{ jsonl: "{}" jsonl_kind: {} held_out: 0 }}\n'
    grpo = MODEL + "task: GRPO\n"  # which holds nothing out to ask
    fine = {"prompt": "x", "answer": "1"}
    refuse("no such file", grpo + batch + jsonl.format("none.jsonl", "EXACT"), 66, "none.jsonl")
    refuse("an empty file", grpo + batch + jsonl.format(lines("empty.jsonl"), "EXACT"), 65, "empty.jsonl")
    refuse("no answer", grpo + batch + jsonl.format(lines("a.jsonl", fine, {"prompt": "y"}), "EXACT"), 65,
           "a.jsonl line 2", "answer")
    refuse("no JSON", grpo + batch + jsonl.format(lines("b.jsonl", fine, "{"), "MATH"), 65, "b.jsonl line 2")
    refuse("dense where there is none", grpo + batch + 'reward { part { name: "dense" } }\n' +
           jsonl.format(lines("c.jsonl", fine), "EXACT"), 64, "dense")
    for what, tests in (("no test", {"kind": "stdin", "tests": []}), ("no list", {"kind": "stdin"}), ("an empty object", {}),
                        ("a list", []), ("an unknown kind", {"kind": "luck", "tests": [{"input": "", "output": ""}]})):
        refuse(f"a program with {what}", grpo + batch + jsonl.format(
            lines("code.jsonl", {"prompt": "x", "tests": tests}), "CODE"), 65, "code.jsonl line 1", "test")
    # Found in the file, not at the step that first asks it.
    one = batch.replace("sequences: 2", "sequences: 1")
    long = lines("long.jsonl", fine, fine, {"prompt": "x" * 80, "answer": "1"})
    longer = lines("longer.jsonl", fine, {"prompt": "x", "answer": "1" * 80})
    last = GRPO.replace("evaluate { problems: 4 }", "evaluate { problems: 4 at_start: false }")
    for what, recipe, words in (
            ("one prompt of many that is too long", grpo + one + jsonl.format(long, "EXACT"),
             ("long.jsonl line 3", "batch.sequence_length 64")),
            ("one held-out prompt that is too long", last + one + 'problems { jsonl: "%s" jsonl_kind: EXACT '
             'held_out_jsonl: "long.jsonl" }\n' % lines("short.jsonl", {"prompt": "y", "answer": "1"}),
             ("long.jsonl line 3", "batch.sequence_length 64")),
            ("one worked answer that is too long", MODEL + "task: SFT\n" + one.replace(RL, MAX_NEW) + jsonl.format(longer, "EXACT"),
             ("longer.jsonl line 2", "batch.sequence_length is 64")),
            ("to keep answers to a prompt that is too long", MODEL + "task: REJECTION\n" + one + jsonl.format(long, "EXACT"),
             ("long.jsonl line 3", "batch.sequence_length 64"))):
        refuse(what, recipe, 64, *words)
        rows = f"out{number}/metrics.jsonl"
        check(not os.path.exists(rows) or not open(rows).read(), f"{what}: before the first step")
    refuse("to ask what nothing is held out of", GRPO + batch + jsonl.format("a.jsonl", "EXACT"), 64, "evaluate is given",
           "problems.held_out is 0")
    for opening, where in (("<answer>", "TAGS"), ("so \\\\boxed{", "BOXED")):
        refuse(f"an opening with {opening}", GRPO + TOKENIZER + SORT + RL + f'open_answer: "{opening}" answer {{ where: {where} }}',
               64, "open_answer has", where)


def template_in_checkpoints():
    """A chat template that the recipe names goes into checkpoints, whose folder then has it."""
    recipe = MODEL + 'task: SFT\ntokenizer: "bytes"\nchat_template: "chatml"\nproblems { kind: "sort" sort_length: 2 }\n' \
        'new_token: "<|im_start|>"\nnew_token: "<|im_end|>"\nbatch { sequences: 2 sequence_length: 64 }\nrl { max_new: 3 }\n'
    open("chat.textproto", "w").write(recipe)
    done = subprocess.run([moebius, "train", "chat.textproto", "--out", "chat"], capture_output=True, text=True, timeout=60)
    path = "chat/checkpoints/latest/chat_template.jinja"
    check(done.returncode == 0 and os.path.exists(path) and "<|im_start|>" in open(path).read(),
          f"the named chat template is in the checkpoint {done.stderr.strip()}")
    chat = subprocess.run([moebius, "chat", "chat/checkpoints/latest", "--max-new", "2", "--json"], input="sort 21=\n",
                          capture_output=True, text=True, timeout=60)
    check(chat.returncode == 0 and '"user"' in chat.stdout, f"and moebius chat takes it {chat.stderr.strip()}")


def refuse_templates():
    """A model that was not made for a chat, or a template that nobody knows: what to set is in the message."""
    sft = MODEL + "task: SFT\nbatch { sequences: 2 sequence_length: 64 }\n" + 'problems { kind: "sort" sort_length: 2 }\n' + MAX_NEW
    open("plain.textproto", "w").write(sft + 'tokenizer: "bytes"\n')
    run = subprocess.run([moebius, "train", "plain.textproto", "--out", "plain"], capture_output=True, text=True, timeout=60)
    check(run.returncode == 0, f"a model without markers is made {run.stderr.strip()}")
    chat = sft.split("model {")[0] + sft.split("}", 1)[1] + 'init { from: "plain/checkpoints/latest" }\nchat_template: "chatml"\n'
    refuse("a model without the template's tokens", chat, 64, 'no token "<|im_start|>"', 'new_token: "<|im_start|>"',
           "chat_template: chatml")
    refuse("with one of the two", chat + 'new_token: "<|im_start|>"\n', 64, 'new_token: "<|im_end|>"')
    refuse("reinforcement of it", chat.replace("SFT", "GRPO"), 64, 'new_token: "<|im_start|>"')
    refuse("an unknown chat template", chat.replace('"chatml"', '"chatmll"'), 64, 'chat_template "chatmll"', "chatml, ")
    open("added.textproto", "w").write(chat + 'new_token: "<|im_start|>"\nnew_token: "<|im_end|>"\n')
    run = subprocess.run([moebius, "train", "added.textproto", "--out", "added"], capture_output=True, text=True, timeout=60)
    check(run.returncode == 0, f"with what the message says it trains {run.stderr.strip()}")


def refuse_supervised():
    sft = MODEL + "task: SFT\nbatch { sequences: 2 sequence_length: 32 }\n" + TOKENIZER
    dpo = MODEL + "task: DPO\nbatch { sequences: 2 sequence_length: 32 }\n" + TOKENIZER
    turn = {"messages": [{"role": "user", "content": "sort 21="}, {"role": "assistant", "content": "12"}]}
    pair = {"prompt": "sort 21=", "chosen": "12", "rejected": "21"}
    refuse("fine-tuning on nothing", sft, 64, "sft.data")
    refuse("evaluating without problems", sft + EVALUATE + 'sft { data: "none.jsonl" }', 64, "evaluate.problems is 4",
           "without problems")
    refuse("no such conversations", sft + 'sft { data: "none.jsonl" }', 66, "none.jsonl")
    refuse("an empty answer", sft + 'sft { data: "%s" }' % lines(
        "s1.jsonl", turn, {"messages": [turn["messages"][0], {"role": "assistant", "content": ""}]}), 65, "s1.jsonl", "2")
    refuse("a symbol without a token", sft + 'sft { data: "%s" }' % lines(
        "s2.jsonl", {"prompt": "sort 21=", "completion": "x"}), 64, "s2.jsonl line 1", "no token")
    refuse("only long conversations", sft + 'sft { data: "%s" }' % lines(
        "s3.jsonl", {"prompt": "sort 21=", "completion": "1" * 40}), 64, "1 are longer than batch.sequence_length 32")
    refuse("preferences of nothing", dpo, 64, "dpo.data")
    refuse("no such pairs", dpo + 'dpo { data: "none.jsonl" }', 66, "none.jsonl")
    refuse("equal answers", dpo + 'dpo { data: "%s" }' % lines(
        "d1.jsonl", pair, {"prompt": "sort 21=", "chosen": "12", "rejected": "12"}), 65, "d1.jsonl line 2", "same")
    refuse("only long pairs", dpo + 'dpo { data: "%s" }' % lines(
        "d2.jsonl", {"prompt": "sort 21=", "chosen": "1" * 40, "rejected": "2"}), 64, "d2.jsonl", "sequence_length")


def refuse_distillation():
    distill = MODEL + "task: DISTILL\nbatch { sequences: 2 sequence_length: 32 }\n" + TOKENIZER + MAX_NEW
    sort = 'problems { kind: "sort" sort_length: 2 }\n'
    teacher = 'distill { teacher: "other/checkpoints/latest" %s }\n'
    refuse("distilling without a teacher", distill + sort, 64, "distill.teacher")
    refuse("distilling nothing", distill + teacher % "", 64, "sft.data", "DISTILL")
    refuse("a teacher that is not there", distill + sort + 'distill { teacher: "none" }', 66, "none")
    for field, value in (("temperature", "0"), ("hard_weight", "1.5"), ("hard_weight", "-0.1")):
        refuse(f"distill.{field} {value}", distill + sort + teacher % f"{field}: {value}", 64, f"distill.{field}")
    open("other.textproto", "w").write(MODEL + "task: SFT\nbatch { sequences: 2 sequence_length: 32 }\n" + sort + MAX_NEW +
                                       'tokenizer: "symbols:0123456789sort =+"\n')
    run = subprocess.run([moebius, "train", "other.textproto", "--out", "other"], capture_output=True, text=True, timeout=60)
    check(run.returncode == 0, f"a teacher with another tokenizer is made {run.stderr.strip()}")
    for ranks in (1, 2):
        refuse(f"a teacher with another vocabulary on {ranks} ranks", distill + sort + teacher % "", 64,
               "distill.teacher other/checkpoints/latest", "18 tokens", "17", ranks=ranks)
    refuse("a teacher for fewer tokens than the student has",
           distill.replace(TOKENIZER, 'tokenizer: "symbols:0123456789sort =+"\n').replace("model {", "model { vocab_size: 64") +
           sort + teacher % "", 64, "logits for 18 tokens, the student for 64")


with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    refuse_reinforcement()
    refuse_files()
    refuse_supervised()
    refuse_templates()
    refuse_distillation()
    template_in_checkpoints()
    os.chdir("/")
print(f"{len(failures)} failures")
sys.exit(1 if failures else 0)
