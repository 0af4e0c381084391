# {"verdict": ["OK"], "tests": {"kind": "function", "function": "f", "tests": [{"input": [3], "output": 9}]}}
from dataclasses import dataclass
import pickle
@dataclass
class Square:
    side: int
def f(x):
    return pickle.loads(pickle.dumps(Square(x))).side ** 2
