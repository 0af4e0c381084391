# {"verdict": ["DENIED"]}
import os, signal
for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGCHLD):
    for pid in (os.getppid(), 1):
        try:
            os.kill(pid, number)
            print("sent")
        except OSError as error:
            print(error)
