// {"verdict": ["WRONG"], "tests": {"kind": "assert", "tests": [{"input": "assert(f(1) == 3);"}]}}
int f(int x) { return x * 2; }
