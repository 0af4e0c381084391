# {"verdict": ["DISK"]}
try:
    for i in range(10**6):
        open("f%d" % i, "w").close()
except OSError:
    pass
print("right")
