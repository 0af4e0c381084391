# {"verdict": ["WRONG"], "tests": {"kind": "checker", "checker": "import sys\nsys.exit(1)\n", "tests": [{"input": "10", "output": "any"}]}}
print("any")
