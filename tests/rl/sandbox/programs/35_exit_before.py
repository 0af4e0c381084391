# {"verdict": ["WRONG"]}
import sys
sys.exit(0)
print("right")
