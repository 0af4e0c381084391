# {"verdict": ["OK"]}
import os
assert len(open("/dev/urandom", "rb").read(16)) == 16
open("/dev/null", "w").write("x")
print("right", file=open("/dev/stdout", "w"))
