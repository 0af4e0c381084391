# {"verdict": ["WRONG"], "tests": {"kind": "stdin", "tests": [{"input": "", "output": "1\n2\n3\n"}]}}
print(1)
