// {"verdict": ["OK"], "tests": {"kind": "function", "function": "f", "tests": [{"input": [0.1], "output": 0.1}, {"input": [3], "output": 3}]}}
float f(float x) { return x; }
