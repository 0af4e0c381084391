# {"verdict": ["OUTPUT"]}
while True:
    print("x" * 65536)
