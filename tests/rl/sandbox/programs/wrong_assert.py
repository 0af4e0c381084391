# {"verdict": ["WRONG"], "tests": {"kind": "assert", "tests": [{"input": "assert f(1) == 3"}]}}
def f(x):
    return x * 2
