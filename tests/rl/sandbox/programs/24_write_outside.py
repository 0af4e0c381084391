# {"verdict": ["DENIED"]}
import os
for path in ("@SECRET@", "/usr/bin/x", "/prog/main.py", "/etc/passwd", "/x", "/dev/sda", "/bin/sh"):
    try:
        open(path, "w").write("changed")
        print("written", path)
    except OSError as error:
        print(error)
