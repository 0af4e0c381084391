#!/usr/bin/env python3
"""500 damaged or hostile inputs: each must end in a right exit code with a message that names the file (and the field
where one is wrong), and never crash. Generated from a seed, so every run sees the same ones.
Usage: hostile_test.py MOEBIUS [COUNT]"""
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile

moebius = os.path.abspath(sys.argv[1])
count = int(sys.argv[2]) if len(sys.argv) > 2 else 500
rng = random.Random(20261125)
CONFIG = {"model_type": "deepseek_v3", "vocab_size": 280, "hidden_size": 32, "intermediate_size": 48,
          "moe_intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "n_shared_experts": 1,
          "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
          "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
          "max_position_embeddings": 64}
RECIPE = "".join(["name: \"h\"\nmodel {\n"] +
                 [f"  {k}: {json.dumps(v)}\n" for k, v in CONFIG.items()] +
                 ["}\ndata { train: \"data/train.h5\" validation: \"data/val.h5\" }\n",
                  "batch { sequences: 2 sequence_length: 16 }\nsteps: 2\noptimizer { lr: 1e-3 }\nthreads: 1\n"])


def run(*args):
    return subprocess.run([moebius, *args], capture_output=True, timeout=120)


def make_fixture():
    os.makedirs("text")
    for k in range(3):
        open(f"text/{k}.txt", "w").write("".join(f"Line {i} of {k} is here. " for i in range(400)))
    done = run("data", "build", "--text", "text", "--held-out", "text/2.txt", "--vocab-size", "280", "--out", "data")
    assert done.returncode == 0, done.stderr
    open("r.textproto", "w").write(RECIPE)
    done = run("train", "r.textproto", "--out", "run")
    assert done.returncode == 0, done.stderr
    open("ids.jsonl", "w").write('{"ids":[1,2,3]}\n{"ids":[4,5]}\n')
    open("text.jsonl", "w").write('{"text":"one"}\n{"text":"two words"}\n')


CHECKPOINT = "run/checkpoints/latest"


def copy_checkpoint(manifest):
    """The checkpoint as `m`; without its manifest the reader has only the file itself to go by."""
    shutil.rmtree("m", ignore_errors=True)
    shutil.copytree(os.path.realpath(CHECKPOINT), "m")
    if not manifest:
        os.remove("m/manifest.json")


def damage_bytes(data):
    """One of many ways to spoil a file; never the identity."""
    data = bytearray(data)
    kind = rng.randrange(6)
    at = rng.randrange(max(1, len(data)))
    if kind == 0:
        return bytes(data[:at])
    if kind == 1:
        data[at] ^= 1 << rng.randrange(8)
        return bytes(data)
    if kind == 2:
        return bytes(data) + bytes(rng.randrange(256) for _ in range(rng.randrange(1, 40)))
    if kind == 3:
        n = min(len(data) - at, rng.randrange(1, 64))
        new = bytes(rng.randrange(256) for _ in range(n))
        out = bytes(data[:at]) + new + bytes(data[at + n:])
        return out if out != bytes(data) else out + b"x"
    if kind == 4:
        return b""
    return bytes(rng.randrange(256) for _ in range(rng.randrange(1, 400)))


DEEP = "[" * 100000
WRONG_VALUES = [-1, 0, 1e300, 2**70, "text", None, [], {}, True, 0.5, -2**63, "\ud800", "x" * 100000]


def damage_json(text):
    """Spoils JSON text; returns (text, field or None)."""
    kind = rng.randrange(6)
    if kind == 0:
        return DEEP, None
    if kind == 1:
        return text[:rng.randrange(len(text))].rstrip().rstrip("}") or "{", None
    if kind == 2:
        return text.replace("{", '{"a":1,"a":2,', 1), None
    if kind == 3:
        return text.replace(":", ":\u0001", 1), None
    if kind == 4:
        return '"just a string"', None
    return "[" + text + ",1e999]", None


def case_recipe():
    lines = RECIPE.splitlines()
    kind = rng.randrange(9)
    if kind == 0:
        text = "\n".join(lines[:rng.randrange(3, 20)]) + "\n"  # an open brace
    elif kind == 1:
        i = rng.randrange(2, 18)
        lines[i] = lines[i].replace(":", "x:", 1)  # an unknown field
        text = "\n".join(lines)
    elif kind == 2:
        i = rng.randrange(3, 18)
        lines[i] = lines[i].split(":")[0] + ": " + rng.choice(["-5", "1e40", "99999999999999999999", '"word"', "nan"])
        text = "\n".join(lines)
    elif kind == 3:
        text = RECIPE + "model { " * 100000
    elif kind == 4:
        text = RECIPE + bytes(rng.randrange(256) for _ in range(50)).decode("latin-1") + "\x00\x01 {{{"
    elif kind == 5:
        text = RECIPE.replace("sequences: 2", "sequences: " + rng.choice(["0", "-1", "3 microbatch_sequences: 2", "1e9"]))
    elif kind == 6:
        text = RECIPE.replace("data/train.h5", rng.choice(["nowhere.h5", "text", "/dev/null", "r.textproto", ""]))
    elif kind == 7:
        text = RECIPE.replace("lr: 1e-3", rng.choice(["lr: -1", "lr: inf", "lr: 1e-3 beta1: 1.5", "lr: 1e-3 schedule: NO"]))
    else:
        text = RECIPE + rng.choice(["task: GRPO", "precision { compute: FP4 }", "parallel { expert: 7 }", "steps: 0",
                                    "max_minutes: -1", "include: \"none.textproto\"", "init { from: \"nowhere\" }"])
    open("bad.textproto", "w", encoding="utf-8", errors="surrogateescape").write(text)
    names = ["bad.textproto", "nowhere", "text", "/dev/null", "r.textproto", "model", "data.train", "none.textproto"]
    return ["train", "bad.textproto", "--out", "bad-run"], {64, 65, 66}, names


def case_config():
    copy_checkpoint(False)
    text = open("m/config.json").read()
    field = None
    if rng.random() < 0.5:
        text, field = damage_json(text)
    else:
        config = json.loads(text)
        field = rng.choice([k for k in CONFIG if k not in ("max_position_embeddings", "q_lora_rank", "n_shared_experts",
                                                           "first_k_dense_replace", "n_group", "topk_group")])
        if rng.random() < 0.3:
            del config[field]
        else:
            config[field] = rng.choice([-1, 2**70, "text", [], {}, True, 0.5, -2**63])
        text = json.dumps(config)
    open("m/config.json", "w").write(text)
    return ["score", "m", "--tokens", "ids.jsonl"], {64, 65}, ["config.json", "m: tensor"]


def case_safetensors():
    copy_checkpoint(False)
    data = open("m/model.safetensors", "rb").read()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + n])
    kind = rng.randrange(8)
    name = rng.choice([k for k in header if k != "__metadata__"])
    if kind == 0:
        data = data[:rng.randrange(len(data))]
    elif kind == 1:
        data = struct.pack("<Q", rng.choice([0, 1, n - 1, n + 1, 2**63, 2**64 - 1, 100_000_001])) + data[8:]
    elif kind == 2:
        data = data[:8] + DEEP.encode()[:n].ljust(n) + data[8 + n:]
    else:
        entry = header[name]
        if kind == 3:
            entry["data_offsets"] = rng.choice([[0, 2**62], [-1, 5], [5, 1], "x", [1], [0, 0], None])
        elif kind == 4:
            entry["shape"] = rng.choice([[2**62, 2**62], [-1], "x", [1, 1], None, [0.5]])
        elif kind == 5:
            entry["dtype"] = rng.choice(["F33", "", None, 7, "I64", "f32"])
        elif kind == 6:
            header["renamed"] = header.pop(name)
        else:
            header["__metadata__"] = rng.choice([{"a": 1}, [], 5])
        text = json.dumps(header).encode()
        data = struct.pack("<Q", len(text)) + text + data[8 + n:]
    open("m/model.safetensors", "wb").write(data)
    return ["score", "m", "--tokens", "ids.jsonl"], {65}, ["model.safetensors", "m: tensor"]


def case_tokenizer():
    text = open("data/tokenizer.json").read()
    kind = rng.randrange(6)
    if kind == 0:
        text, _ = damage_json(text)
    else:
        t = json.loads(text)
        if kind == 1:
            t["model"]["type"] = rng.choice(["WordPiece", "", None, 5])
        elif kind == 2:
            t["model"]["merges"].append(rng.choice([["zz", "qq"], "one", ["a"], 5, None, ["\u0120\u0120\u0120", "x"]]))
        elif kind == 3:
            t["model"]["vocab"][rng.choice(["new", "x" * 1000])] = rng.choice([-1, 2**40, "x", 0, 1.5, None])
        elif kind == 4:
            t["pre_tokenizer"] = rng.choice([{"type": "Whitespace"}, 5, {"type": "Split", "pattern": {"Regex": "(a+)+"}}])
        else:
            t["added_tokens"] = rng.choice([[{"id": -1, "content": "x"}], {}, [5], [{"id": 2**50, "content": "q"}], "x"])
        text = json.dumps(t)
    open("bad-tokenizer.json", "w").write(text)
    return ["tokenizer", "encode", "--tokenizer", "bad-tokenizer.json", "--jsonl", "text.jsonl"], {65}, ["bad-tokenizer.json"]


def case_token_file():
    shutil.rmtree("d", ignore_errors=True)
    shutil.copytree("data", "d")
    if rng.random() < 0.5:
        os.remove("d/manifest.json")  # nothing to compare with: the file itself must give it away, or be usable
        data = open("d/train.h5", "rb").read()
        data = data[:rng.randrange(len(data))] if rng.random() < 0.5 else damage_bytes(data)
        harmless = {0}  # a flipped bit of a token is another token
    else:
        data = damage_bytes(open("d/train.h5", "rb").read())
        harmless = set()
    open("d/train.h5", "wb").write(data)
    open("t.textproto", "w").write(RECIPE.replace("data/", "d/"))
    shutil.rmtree("t-run", ignore_errors=True)
    return ["train", "t.textproto", "--out", "t-run"], {65} | harmless, ["train.h5"]


def case_manifest():
    copy_checkpoint(True)
    text = open("m/manifest.json").read()
    if rng.random() < 0.4:
        text, _ = damage_json(text)
    else:
        m = json.loads(text)
        name = rng.choice(list(m["files"]))
        choice = rng.randrange(6)
        if choice == 0:
            m["files"][name]["sha256"] = "0" * 64
        elif choice == 1:
            m["files"][name]["bytes"] = rng.choice([-1, 2**70, "x", None, 1])
        elif choice == 2:
            m["files"]["../" + name] = m["files"].pop(name)
        elif choice == 3:
            m["format_version"] = rng.choice([99, "1", None, -1])
        elif choice == 4:
            m["files"] = rng.choice([[], 5, None, {"none.bin": {"sha256": "0" * 64, "bytes": 5}}])
        else:
            m["files"][name] = rng.choice([None, 5, [], {}])
        text = json.dumps(m)
    open("m/manifest.json", "w").write(text)
    shutil.rmtree("e", ignore_errors=True)
    return ["export", "m", "e"], {65, 66}, ["manifest.json", "m/"]


def case_checkpoint_file():
    copy_checkpoint(True)
    name = rng.choice(["model.safetensors", "optimizer.safetensors", "trainer_state.json", "config.json", "tokenizer.json"])
    data = damage_bytes(open(f"m/{name}", "rb").read())
    open(f"m/{name}", "wb").write(data)
    shutil.rmtree("e", ignore_errors=True)
    return ["export", "m", "e"], {65}, [name]


def case_ids():
    line = rng.choice(['{"ids":[1,2', '{"ids":"x"}', '{"ids":[1.5]}', '{"ids":[-1]}', '{"ids":[280]}', '{"ids":[]}', "[]", "5",
                       '{"id":[1]}', '{"ids":[99999999999999999999]}', DEEP, '{"ids":' + DEEP, '{"ids":[' + "1," * 70 + "1]}",
                       '{"ids":[null]}', "\x00\x01", '{"ids":[1],"ids":[2]}', "NaN", "{" * 50])
    open("bad.jsonl", "w").write('{"ids":[1,2,3]}\n' * rng.randrange(3) + line + "\n")
    return ["score", os.path.realpath(CHECKPOINT), "--tokens", "bad.jsonl"], {65}, ["bad.jsonl"]


def case_jsonl():
    bad = rng.choice([b'{"text":5}', b'{"txt":"x"}', b"[1]", b'{"text":"\xff\xfe"}', DEEP.encode(), b'{"text":"open', b"\x00",
                      b'{"text":null}', b"5", b'{"text":"a","text":"b"}'])
    name = rng.choice(["bad.jsonl", "bad.jsonl.gz", "bad.jsonl.zst"])
    good = b'{"text":"a good line"}\n' * rng.randrange(4)
    open(name, "wb").write(good + bad + b"\n" if name == "bad.jsonl" else damage_bytes(good + bad))
    if rng.random() < 0.5 and name == "bad.jsonl":
        return ["tokenizer", "encode", "--tokenizer", "data/tokenizer.json", "--jsonl", name], {65}, [name]
    shutil.rmtree("b", ignore_errors=True)
    return ["data", "build", "--jsonl", name, "--vocab-size", "280", "--out", "b"], {64, 65, 66}, [name, "document"]


CASES = [case_recipe, case_config, case_safetensors, case_tokenizer, case_token_file, case_manifest, case_checkpoint_file,
         case_ids, case_jsonl]
failures = 0
with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    make_fixture()
    by_code = {}
    for i in range(count):
        make = CASES[i % len(CASES)]
        args, codes, names = make()
        done = run(*args)
        message = done.stderr.decode("utf-8", "replace")
        ok = done.returncode in codes and (done.returncode == 0 or
                                           (message.startswith("error: ") and any(n in message for n in names)))
        ok = ok and "Sanitizer" not in message and "runtime error" not in message and len(message) < 20000
        by_code[done.returncode] = by_code.get(done.returncode, 0) + 1
        if not ok:
            failures += 1
            print(f"FAIL  input {i} ({make.__name__}): {' '.join(args)}: exit {done.returncode}, expected {sorted(codes)}: "
                  f"{message[:600]}", flush=True)
        for left in ("b", "e", "bad-run"):
            if done.returncode and os.path.exists(left):
                failures += 1
                print(f"FAIL  input {i} ({make.__name__}): left {left} behind")
            shutil.rmtree(left, ignore_errors=True)
    os.chdir("/")
print(f"{count} inputs, exit codes {dict(sorted(by_code.items()))}, {failures} failures")
sys.exit(1 if failures else 0)
