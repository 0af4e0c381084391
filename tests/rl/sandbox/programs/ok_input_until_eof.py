# {"verdict": ["OK"], "tests": {"kind": "stdin", "tests": [{"input": "1\n2\n3", "output": "6"}]}}
total = 0
while True:
    try:
        total += int(input())
    except EOFError:
        break
print(total)
exit()
