# {"verdict": ["HARNESS"], "tests": {"kind": "checker", "checker": "import sys\nsys.exit(opn(sys.argv[3]).read() != 'any')\n", "tests": [{"input": "10", "output": "any"}]}}
print("any", end="")
