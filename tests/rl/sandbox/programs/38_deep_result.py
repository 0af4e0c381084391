# {"verdict": ["WRONG", "RUNTIME"], "tests": {"kind": "function", "function": "f", "tests": [{"input": [1], "output": 2}]}}
def f(x):
    value = []
    for _ in range(100000):
        value = [value]
    return value
