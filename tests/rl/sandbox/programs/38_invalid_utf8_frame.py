# {"verdict": ["WRONG"], "tests": {"kind": "function", "function": "f", "tests": [{"input": [1], "output": "a"}]}}
import os
def f(x):
    text = b'"\xff\xfe\x00"'
    os.write(3, len(text).to_bytes(4, "little") + text)
    os._exit(0)
