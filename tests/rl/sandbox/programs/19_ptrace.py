# {"verdict": ["DENIED"]}
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for pid in (os.getppid(), 1):
    for request in (16, 0x4206):
        print(libc.ptrace(request, pid, 0, 0), os.strerror(ctypes.get_errno()))
