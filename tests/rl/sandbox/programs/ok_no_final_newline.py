# {"verdict": ["OK"], "tests": {"kind": "stdin", "tests": [{"input": "3", "output": "3\n"}]}}
print(input(), end="")
