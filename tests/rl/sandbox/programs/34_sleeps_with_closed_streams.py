# {"verdict": ["WALL"], "limits": {"wall_s": 1}, "input_mib": 10}
import os, time
for fd in (0, 1, 2):
    os.close(fd)
time.sleep(60)
