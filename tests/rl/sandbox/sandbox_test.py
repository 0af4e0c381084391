"""Runs every program of tests/rl/sandbox/programs in the sandbox and compares verdicts: as root and as an ordinary
user, two at a time, in full mode and in each fall-back mode. The first line of a program says what is expected:
{"verdict": [...], "tests": {...}, "limits": {...}, "input_mib": N, "input_lines": N, "quick": true}; without "tests"
the program must print "right". After each mode nothing may be left: processes, control groups, mounts, changed files,
connections, slot folders.

Usage: sandbox_test.py MOEBIUS [--mode NAME]... [--only WORD] [--table]"""
import argparse
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time

PROGRAMS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "programs")
SECRET = "the tester's secret 4711"
# Mode -> layers to do without. "user" needs root here, to become an ordinary user.
MODES = {
    "root": [],
    "user": [],
    "root without cgroups": ["cgroups"],
    "root without user_namespace": ["user_namespace"],
    "root without landlock": ["landlock"],
    "user without landlock": ["landlock"],
}


class Tester:
    """What programs try to reach: a secret, two listeners, this process."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="sandbox-test-")
        os.chmod(self.folder, 0o755)
        self.secret = os.path.join(self.folder, "secret.txt")
        with open(self.secret, "w", encoding="utf-8") as file:
            file.write(SECRET)
        os.chmod(self.secret, 0o666)
        self.tcp = socket.socket()
        self.tcp.bind(("127.0.0.1", 0))
        self.tcp.listen()
        self.tcp.setblocking(False)
        self.port = self.tcp.getsockname()[1]
        self.abstract = f"sandbox-test-{os.getpid()}"
        self.local = socket.socket(socket.AF_UNIX)
        self.local.bind("\0" + self.abstract)
        self.local.listen()
        self.local.setblocking(False)

    def fill(self, text):
        return text.replace("@SECRET@", self.secret).replace("@PORT@", str(self.port)).replace("@ABSTRACT@", self.abstract)

    def problems(self):
        found = []
        with open(self.secret, encoding="utf-8") as file:
            if file.read() != SECRET:
                found.append("the secret file was changed")
        for listener in (self.tcp, self.local):
            try:
                listener.accept()
                found.append("a connection came")
            except BlockingIOError:
                pass
        if sorted(os.listdir(self.folder)) != ["secret.txt"]:
            found.append(f"files were written: {os.listdir(self.folder)}")
        return found

    def close(self):
        self.tcp.close()
        self.local.close()
        shutil.rmtree(self.folder)


def read_case(name, tester):
    with open(os.path.join(PROGRAMS, name), encoding="utf-8") as file:
        text = file.read()
    spec = json.loads(text.split("\n", 1)[0].lstrip("#/ "))
    tests = spec.get("tests")
    if tests is None:
        test = {"input": "", "output": "right\n"}
        if "input_mib" in spec:
            test["input"] = ("x" * 1023 + "\n") * (spec["input_mib"] << 10)
        if "input_lines" in spec:
            test["input"] = "".join(f"{i}\n" for i in range(spec["input_lines"]))
            test["output"] = str(spec["input_lines"] * (spec["input_lines"] - 1) // 2)
        tests = {"kind": "stdin", "tests": [test]}
    tests["limits"] = {**tests.get("limits", {}), **spec.get("limits", {})}
    job = {"lang": "cpp" if name.endswith(".cpp") else "python", "program": tester.fill(text), "tests": tests}
    return spec, job


def machine_state():
    """Things that must be the same before and after."""
    groups = []
    for root in ("/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"):
        if os.path.isdir(root):
            groups += [os.path.join(at, d) for at, dirs, _ in os.walk(root) for d in dirs if d.startswith("moebius-")]
    processes = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
                fields = dict(line.split(":\t", 1) for line in file if ":\t" in line)
            if fields["State"][0] == "Z":
                continue
            if fields["Name"].strip() == "moebius-sandbox" or int(fields["Uid"].split()[0]) >= 1000000000:
                processes.append(pid)
        except (OSError, KeyError):
            pass
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        mounts = sorted(line for line in file if "moebius-" in line)  # others come and go
    slots = [name for name in os.listdir("/tmp") if name.startswith(("moebius-slot-", "moebius-canary-"))]
    return {"control groups": sorted(groups), "processes": sorted(processes), "mounts": mounts, "folders": sorted(slots)}


def command(moebius, mode, arguments):
    words = [moebius, "sandbox", *arguments]
    for layer in MODES[mode]:
        words += ["--without", layer]
    if mode.startswith("user") and os.geteuid() == 0:
        user = pwd.getpwnam("nobody")
        words = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", *words]
    return words


def check_state(mode, before, tester, failures):
    after = machine_state()
    for _ in range(20):
        if after == before:
            break
        time.sleep(0.05)
        after = machine_state()
    for what in before:
        if after[what] != before[what]:
            failures.append(f"{mode}: {what} left: {sorted(set(after[what]) - set(before[what]))}")
    failures += [f"{mode}: {problem}" for problem in tester.problems()]


def run_mode(moebius, mode, names, table, failures):
    tester = Tester()
    specs, lines = [], []
    honest = {"lang": "python", "program": "print('right')",
              "tests": {"kind": "stdin", "tests": [{"input": "", "output": "right"}]}}
    for name in names:
        spec, job = read_case(name, tester)
        specs.append((name, spec))
        lines += [json.dumps(job), json.dumps(honest)]  # after each case the next honest program is still OK
    before = machine_state()
    started = time.time()
    result = subprocess.run(command(moebius, mode, ["run", "--batch", "-", "--slots", "2"]),
                            input="\n".join(lines) + "\n", capture_output=True, text=True, check=False)
    check_state(mode, before, tester, failures)
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    if result.returncode != 0 or len(answers) != len(lines):
        failures.append(f"{mode}: exit {result.returncode}, {len(answers)} of {len(lines)} answers: {result.stderr[-500:]}")
        tester.close()
        return
    for (name, spec), answer, after in zip(specs, answers[0::2], answers[1::2]):
        table.setdefault(name, {})[mode] = answer["verdict"]
        if answer["verdict"] not in spec["verdict"]:
            failures.append(f"{mode}: {name}: {answer['verdict']}, expected {spec['verdict']}: {json.dumps(answer)[:600]}")
        if spec.get("quick") and answer["tests"][0]["wall_ms"] > 3000:
            failures.append(f"{mode}: {name}: took {answer['tests'][0]['wall_ms']} ms")
        if SECRET in json.dumps(answer):
            failures.append(f"{mode}: {name}: the secret came out")
        if after["verdict"] != "OK":
            failures.append(f"{mode}: the honest program after {name}: {json.dumps(after)[:300]}")
    print(f"{mode}: {len(specs)} programs in {time.time() - started:.1f} s", flush=True)
    tester.close()


def check_refusal(moebius, failures):
    """Without its walls the sandbox refuses with 69; only --unsafe runs then, and says so."""
    honest = json.dumps({"lang": "python", "program": "print('right')",
                         "tests": {"kind": "stdin", "tests": [{"input": "", "output": "right"}]}})
    modes = ["root", "user"] if os.geteuid() == 0 else ["user"]
    for mode in modes:
        for layer in ("namespaces", "seccomp"):
            for arguments in (["check"], ["run", "--batch", "-"]):
                words = command(moebius, mode, [*arguments, "--without", layer])
                result = subprocess.run(words, input=honest, capture_output=True, text=True, check=False)
                if result.returncode != 69 or "not" not in result.stderr:
                    failures.append(f"{mode} {arguments} without {layer}: exit {result.returncode}: {result.stderr[:300]}")
            words = command(moebius, mode, ["run", "--batch", "-", "--unsafe", "--without", layer])
            result = subprocess.run(words, input=honest, capture_output=True, text=True, check=False)
            if result.returncode != 0 or '"verdict":"OK"' not in result.stdout or "UNSAFE" not in result.stderr:
                failures.append(f"{mode} --unsafe without {layer}: exit {result.returncode}: "
                                f"{result.stdout[:300]} {result.stderr[:300]}")
        result = subprocess.run(command(moebius, mode, ["check"]), capture_output=True, text=True, check=False)
        print(f"--- sandbox check as {mode}\n{result.stdout}", end="")
        if result.returncode != 0:
            failures.append(f"{mode}: sandbox check: exit {result.returncode}: {result.stderr[:500]}")


def check_inputs(moebius, failures):
    """Tests that are none are errors (65), never passes."""
    program = "print('right')"
    for tests in ({"kind": "stdin", "tests": []}, {"kind": "stdin"}, {"kind": "other", "tests": [{"input": "", "output": ""}]},
                  {"kind": "function", "tests": [{"input": [], "output": 1}]}, {"kind": "stdin", "tests": [{"input": 1, "output": ""}]},
                  {"kind": "stdin", "tests": [{"input": ""}]}, {"kind": "stdin", "tests": [{"input": "", "output": ""}], "limits": {"cpu": 1}},
                  {"kind": "function", "function": "a;b", "tests": [{"input": [], "output": 1}]},
                  {"kind": "function", "function": "f" * 40000, "tests": [{"input": [], "output": 1}]}):
        line = json.dumps({"lang": "python", "program": program, "tests": tests})
        result = subprocess.run([moebius, "sandbox", "run", "--batch", "-"], input=line, capture_output=True, text=True,
                                check=False)
        if result.returncode != 65 or result.stdout:
            failures.append(f"tests {tests}: exit {result.returncode}, {result.stdout[:200]} {result.stderr[:200]}")


def check_runner_gone(moebius, failures):
    """Without its runner nothing is judged: an error (69), and no verdict of what it left."""
    job = json.dumps({"lang": "python", "program": "import time\ntime.sleep(0.2)\nprint('right')",
                      "tests": {"kind": "stdin", "tests": [{"input": "", "output": "right\n"}]}})
    with subprocess.Popen([moebius, "sandbox", "run", "--batch", "-", "--slots", "2"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdin.write("\n".join([job] * 20))
        process.stdin.close()
        first = process.stdout.readline()
        with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii") as file:
            subprocess.run(["kill", "-9", *file.read().split()], check=True)
        verdicts = [json.loads(line)["verdict"] for line in [first, *process.stdout]]
        error = process.stderr.read()
        code = process.wait()
    if code != 69 or set(verdicts) != {"OK"} or len(verdicts) > 10 or "runner" not in error:
        failures.append(f"runner killed: exit {code}, {verdicts} {error}")


def check_few_ids(moebius, failures):
    """Root of a user namespace, as in a container without root, has no ids to give away."""
    rootless = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*rootless, "true"], capture_output=True, check=False).returncode != 0:
        print("NOT RUN: root of a user namespace, which may not be made here")
        return
    result = subprocess.run([*rootless, moebius, "sandbox", "check"], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        failures.append(f"root of a user namespace: exit {result.returncode}, {result.stdout} {result.stderr}")


def check_killed(moebius, failures):
    """A killed moebius leaves no process behind; its control groups go at the next start."""
    tester = Tester()
    before = machine_state()
    job = json.dumps({"lang": "python", "program": "import time, os\nos.fork()\ntime.sleep(60)",
                      "tests": {"kind": "stdin", "tests": [{"input": "", "output": ""}], "limits": {"wall_s": 60}}})
    with subprocess.Popen([moebius, "sandbox", "run", "--batch", "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                          text=True) as process:
        process.stdin.write(job)
        process.stdin.close()
        time.sleep(1.0)
        if machine_state()["processes"] == before["processes"]:
            failures.append("killed: the slot was not running")
        process.kill()
    time.sleep(0.3)
    subprocess.run([moebius, "sandbox", "check"], capture_output=True, check=False)
    check_state("killed", before, tester, failures)
    tester.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("moebius")
    parser.add_argument("--mode", action="append")
    parser.add_argument("--only", default="")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    # An ordinary user may not reach the build folder: a copy in a place that everybody may read.
    folder = tempfile.mkdtemp(prefix="sandbox-test-binary-")
    os.chmod(folder, 0o755)
    moebius = shutil.copy(arguments.moebius, os.path.join(folder, "moebius"))
    os.chmod(moebius, 0o755)
    modes = arguments.mode or list(MODES)
    if os.geteuid() != 0:
        modes = [mode for mode in modes if mode.startswith("user")]
        print("NOT RUN: the modes of root, since this is an ordinary user")
    names = sorted(name for name in os.listdir(PROGRAMS) if arguments.only in name)
    failures, table = [], {}
    try:
        for mode in modes:
            # Compiling is the same in every mode, and its bombs take longest.
            chosen = [name for name in names if mode in ("root", "user") or not name.startswith(("39_", "40_"))]
            run_mode(moebius, mode, chosen, table, failures)
        if not arguments.only:
            check_refusal(moebius, failures)
            check_inputs(moebius, failures)
            check_killed(moebius, failures)
            check_runner_gone(moebius, failures)
            check_few_ids(moebius, failures)
    finally:
        shutil.rmtree(folder)
    if arguments.table:
        for name in names:
            print(f"{name:40s}", *(f"{table.get(name, {}).get(mode, '-'):8s}" for mode in modes))
    if failures:
        sys.exit("\n".join(failures))
    print(f"{len(names)} programs in {len(modes)} modes: all verdicts as expected, nothing left behind")


main()
