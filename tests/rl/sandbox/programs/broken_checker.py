# {"verdict": ["HARNESS"], "tests": {"kind": "checker", "checker": "import sys\nsys.exit(7)\n", "tests": [{"input": "10", "output": "any"}]}}
print("any")
