# {"verdict": ["OK"], "tests": {"kind": "assert", "tests": [{"input": "assert sum(10, 15) == 6\nassert sum(100, 150) == 93"}]}}
import sys


def sum(a, b):
    total = 0
    for i in range(1, min(a, b)):
        if a % i == 0 and b % i == 0:
            total += i
    return total
