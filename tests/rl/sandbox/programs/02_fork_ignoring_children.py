# {"verdict": ["CPU", "WALL"]}
import os, signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    if os.fork() == 0:
        for _ in range(300000):
            pass
        os._exit(0)
    for _ in range(300000):
        pass
