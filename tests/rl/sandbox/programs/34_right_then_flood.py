# {"verdict": ["OUTPUT"]}
import os
print("right", flush=True)
block = b"\n" * 65536
while True:
    os.write(1, block)
