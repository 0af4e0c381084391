# {"verdict": ["OK"], "tests": {"kind": "stdin", "tests": [{"input": "1 2\n3\n", "output": "6"}]}}
import sys
print(sum(int(x) for x in sys.stdin.buffer.read().split()))
