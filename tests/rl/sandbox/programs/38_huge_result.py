# {"verdict": ["OUTPUT", "MEM", "CPU"], "tests": {"kind": "function", "function": "f", "tests": [{"input": [1], "output": 2}]}}
def f(x):
    return "x" * 10000000
