# {"verdict": ["RUNTIME"], "tests": {"kind": "assert", "tests": [{"input": "assert g(1) == 3"}]}}
def f(x):
    return x * 2
