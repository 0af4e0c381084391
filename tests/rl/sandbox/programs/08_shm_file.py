# {"verdict": ["DISK"]}
with open("/dev/shm/big", "wb") as file:
    for _ in range(1000):
        file.write(b"x" * 65536)
