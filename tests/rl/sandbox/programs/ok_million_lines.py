# {"verdict": ["OK"], "input_lines": 1000000, "limits": {"cpu_s": 10, "wall_s": 20}}
import sys
print(sum(map(int, sys.stdin)))
