# {"verdict": ["OK"]}
import sys, threading
sys.setrecursionlimit(1 << 20)
threading.stack_size(64 << 20)
def f(n):
    return 0 if n == 0 else 1 + f(n - 1)
def main():
    print("right" if f(50000) == 50000 else "wrong")
thread = threading.Thread(target=main)
thread.start()
thread.join()
