# {"verdict": ["OK"], "tests": {"kind": "assert", "tests": [{"input": "assert f(1) == Point(1, 1)\nassert Point(1, 2) != f(1)\nassert {f(1), f(1)} == {Point(1, 1)}"}]}}
from dataclasses import dataclass
@dataclass(frozen=True)
class Point:
    x: int
    y: int
def f(n):
    return Point(n, n)
