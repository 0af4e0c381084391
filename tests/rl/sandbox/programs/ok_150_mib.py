# {"verdict": ["OK"]}
block = bytearray(150 << 20)
print("right" if len(block) == 150 << 20 else "wrong")
