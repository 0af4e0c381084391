# {"verdict": ["RUNTIME"]}
import sys
print("right")
sys.exit(3)
