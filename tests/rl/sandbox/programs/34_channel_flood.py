# {"verdict": ["OUTPUT"], "tests": {"kind": "function", "function": "f", "tests": [{"input": [], "output": 1}]}, "limits": {"wall_s": 10}}
import os


def f():
    while True:
        os.write(3, b"\0\0\0\0" * 16384)
