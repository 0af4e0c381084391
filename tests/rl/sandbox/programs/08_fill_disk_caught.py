# {"verdict": ["DISK"]}
try:
    with open("/tmp/big", "wb") as file:
        while True:
            file.write(b"x" * 65536)
except OSError:
    pass
print("right")
