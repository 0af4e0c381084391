// {"verdict": ["RUNTIME"], "tests": {"kind": "function", "function": "f", "tests": [{"input": [99999999999999999999], "output": 9223372036854775807}]}}
long long f(long long x) { return x; }
