# {"verdict": ["OK"], "tests": {"kind": "stdin", "tests": [{"input": "", "output": "0 1 2"}]}}
import os
listing = os.open("/proc/self/fd", os.O_RDONLY)
print(*sorted(int(name) for name in os.listdir(listing) if int(name) < listing))
