# {"verdict": ["OK"]}
import os
block = bytearray(60 << 20)
for i in range(0, len(block), 4096):
    block[i] = 1
pids = []
for _ in range(6):
    pid = os.fork()
    if pid == 0:
        total = sum(block[::4096])
        __import__("time").sleep(0.2)
        os._exit(0 if total == len(block) // 4096 else 1)
    pids.append(pid)
print("right" if all(os.waitpid(pid, 0)[1] == 0 for pid in pids) else "wrong")
