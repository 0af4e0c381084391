# {"verdict": ["WALL"], "limits": {"wall_s": 1}}
import time
time.sleep(1000)
