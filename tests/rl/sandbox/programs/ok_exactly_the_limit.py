# {"verdict": ["OK"]}
import os, threading, time
for _ in range(2):
    threads = [threading.Thread(target=time.sleep, args=(0.1,)) for _ in range(31)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
pids = []
for _ in range(31):
    pid = os.fork()
    if pid == 0:
        time.sleep(0.1)
        os._exit(0)
    pids.append(pid)
for pid in pids:
    os.waitpid(pid, 0)
print("right")
