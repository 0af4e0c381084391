# {"verdict": ["OK"], "tests": {"kind": "stdin", "tests": [{"input": "\u00e4\u20ac\ud83d\ude00\n", "output": "\ud83d\ude00\u20ac\u00e4\n"}]}}
print(input()[::-1])
