# {"verdict": ["DISK"]}
for folder in (".", "/tmp", "/dev/shm"):
    for i in range(100):
        with open(f"{folder}/part{i}", "wb") as file:
            file.write(b"x" * (1 << 18))
print("right")
