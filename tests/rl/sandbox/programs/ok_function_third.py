# {"verdict": ["OK"], "tests": {"kind": "function", "function": "f", "tests": [{"input": [1], "output": 0.3333333333}]}}
def f(x):
    return x / 3
