# {"verdict": ["CPU"], "limits": {"cpu_s": 1}}
import os
for _ in range(4):
    if os.fork() == 0:
        while True:
            pass
while True:
    os.wait()
