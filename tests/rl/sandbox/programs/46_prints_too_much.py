# {"verdict": ["WRONG"], "tests": {"kind": "stdin", "tests": [{"input": "", "output": "1\n2\n"}]}}
print("1\n2\n3")
