# {"verdict": ["DENIED"]}
import os
found = []
for path in ("/proc/1/root@SECRET@", "/proc/1/cwd", "/proc/self/root/../../..@SECRET@", "../../../..@SECRET@", "/proc/1/environ",
             "/proc/1/maps", "/proc/1/mem"):
    try:
        found.append(open(path, "rb").read(100))
    except OSError as error:
        print(path, error)
print(found)
