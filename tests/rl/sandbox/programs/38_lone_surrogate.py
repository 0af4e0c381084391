# {"verdict": ["WRONG"], "tests": {"kind": "function", "function": "f", "tests": [{"input": [1], "output": "a"}]}}
def f(x):
    return "\ud800"
