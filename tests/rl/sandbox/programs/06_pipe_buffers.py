# {"verdict": ["WRONG", "RUNTIME", "MEM"]}
import os, fcntl
kept = []
try:
    while True:
        r, w = os.pipe()
        fcntl.fcntl(w, 1031, 1 << 20)
        os.set_blocking(w, False)
        kept.append((r, w))
        os.write(w, b"x" * (1 << 20))
except OSError as error:
    print(error)
