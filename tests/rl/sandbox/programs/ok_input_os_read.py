# {"verdict": ["OK"], "tests": {"kind": "stdin", "tests": [{"input": "1 2\n3\n", "output": "6"}]}}
import os
data = b""
while block := os.read(0, 2):
    data += block
print(sum(map(int, data.split())))
