# {"verdict": ["WRONG", "RUNTIME"]}
import os, sys
os.close(1)
os.close(2)
