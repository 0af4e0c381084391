# {"verdict": ["DENIED"]}
import os, resource
for pid in (1,):
    try:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, 0))
    except OSError as error:
        print(error)
    try:
        os.sched_setaffinity(pid, {0})
        print("moved")
    except OSError as error:
        print(error)
