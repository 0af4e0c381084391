# {"verdict": ["OK"]}
print("right")
