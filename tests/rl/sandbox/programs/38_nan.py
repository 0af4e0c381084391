# {"verdict": ["WRONG"], "tests": {"kind": "function", "function": "f", "tests": [{"input": [1], "output": 2.5}]}}
def f(x):
    return float("nan")
