# {"verdict": ["OK"], "tests": {"kind": "stdin", "tests": [{"input": "", "output": "2"}]}}
import os
print(len([name for name in os.listdir("/proc") if name.isdigit()]))
