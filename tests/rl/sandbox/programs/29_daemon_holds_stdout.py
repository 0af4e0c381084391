# {"verdict": ["OK"], "quick": true}
import os, time
print("right", flush=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(60)
    os._exit(0)
