# {"verdict": ["OK"], "tests": {"kind": "stdin", "tests": [{"input": "1\n2\n3\n", "output": "6"}]}}
import sys
def main():
    data = iter(sys.stdin.read().split())
    print(sum(int(x) for x in data))
if __name__ == "__main__":
    main()
