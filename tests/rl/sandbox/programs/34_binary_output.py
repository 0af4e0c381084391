# {"verdict": ["WRONG"]}
import os
os.write(1, bytes(range(256)) * 4 + b"\xff\xfe\xed")
