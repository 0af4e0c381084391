// {"verdict": ["WRONG"], "tests": {"kind": "function", "function": "f", "tests": [{"input": [1], "output": 3}]}}
int f(int x) { return x + 1; }
