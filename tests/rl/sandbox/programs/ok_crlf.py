# {"verdict": ["OK"], "tests": {"kind": "stdin", "tests": [{"input": "1\r\n2\r\n", "output": "1\n2\n"}]}}
import sys
for line in sys.stdin:
    sys.stdout.write(line.rstrip("\n") + "\r\n")
