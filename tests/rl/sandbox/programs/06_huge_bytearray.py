# {"verdict": ["MEM"]}
block = bytearray(1 << 34)
print("right")
