# {"verdict": ["OK"], "tests": {"kind": "stdin", "tests": [{"input": "", "output": "HOME LANG PATH PYTHONHASHSEED TMPDIR"}]}}
import os
print(*sorted(os.environ))
