# {"verdict": ["WRONG", "CPU", "OUTPUT"], "tests": {"kind": "function", "function": "f", "tests": [{"input": [1], "output": 2}]}}
def f(x):
    return 10 ** 100000
