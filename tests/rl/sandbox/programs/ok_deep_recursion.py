# {"verdict": ["OK"]}
import sys
sys.setrecursionlimit(200000)
def f(n):
    return 0 if n == 0 else 1 + f(n - 1)
print("right" if f(100000) == 100000 else "wrong")
