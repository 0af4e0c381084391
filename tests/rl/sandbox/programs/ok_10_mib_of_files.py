# {"verdict": ["OK"]}
for i in range(10):
    with open(f"/tmp/{i}", "wb") as file:
        file.write(b"x" * (1 << 20))
print("right")
