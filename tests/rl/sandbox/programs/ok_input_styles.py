# {"verdict": ["OK"], "tests": {"kind": "stdin", "tests": [{"input": "a b\nright\n", "output": "right"}]}}
import fileinput, mmap, os, subprocess, sys
texts = [open("/dev/stdin").read(), open("/proc/self/fd/0").read(), open("/dev/fd/0").read()]
texts.append(subprocess.run(["cat", "/dev/stdin"], capture_output=True, text=True).stdout)
texts.append(mmap.mmap(0, 0, prot=mmap.PROT_READ)[:].decode())
texts.append("".join(fileinput.input("/dev/stdin")))
texts.append(input() + "\n" + sys.stdin.readline())
print("right" if texts == ["a b\nright\n"] * 7 else texts)
