# {"verdict": ["MEM"]}
blocks = []
while True:
    blocks.append(bytes(1 << 20) + b"x")
