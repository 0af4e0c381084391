# {"verdict": ["WRONG"], "tests": {"kind": "function", "function": "f", "tests": [{"input": [], "output": 1}]}}
def f():
    return True
