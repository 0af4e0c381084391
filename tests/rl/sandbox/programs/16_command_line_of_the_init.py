# {"verdict": ["OK"], "tests": {"kind": "stdin", "tests": [{"input": "", "output": "nothing"}]}}
# The command line of what started the slot is nobody's business inside.
try:
    words = open("/proc/1/cmdline", "rb").read().strip(b"\0")
except OSError:
    words = b""
print(words or "nothing")
