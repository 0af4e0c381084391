# {"verdict": ["WRONG"], "tests": {"kind": "checker", "checker": "import os, sys\nos._exit(7 if open(sys.argv[3]).read() != 'any' else 0)\n", "tests": [{"input": "10", "output": "any"}]}}
print("what the checker fails on, which accepts the expected output")
