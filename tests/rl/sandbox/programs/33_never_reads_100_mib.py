# {"verdict": ["OK"], "input_mib": 100}
print("right")
