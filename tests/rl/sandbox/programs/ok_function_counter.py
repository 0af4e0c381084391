# {"verdict": ["OK"], "tests": {"kind": "function", "function": "f", "tests": [{"input": ["abca"], "output": {"a": 2, "b": 1, "c": 1}}]}}
from collections import Counter
def f(text):
    return Counter(text)
