# {"verdict": ["CPU"], "limits": {"cpu_s": 1}}
import time
while time.process_time() < 1.3:
    pass
print("right")
