# {"verdict": ["RUNTIME", "WRONG"]}
import os, signal
for number in (signal.SIGSTOP, signal.SIGKILL):
    try:
        os.kill(-1, number)
    except OSError as error:
        print(error)
os.kill(0, signal.SIGKILL)
