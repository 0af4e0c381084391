# {"verdict": ["OK"], "tests": {"kind": "stdin", "tests": [{"input": "", "output": "HOME LANG PATH TMPDIR"}]}}
import os
print(*sorted(os.environ))
