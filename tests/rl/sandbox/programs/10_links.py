# {"verdict": ["WRONG", "DENIED"]}
import os
os.symlink("/etc/passwd", "link")
os.symlink("loop", "loop")
os.mkfifo("fifo")
open("file", "w").write("x")
os.link("file", "hard")
try:
    os.link("/usr/bin/python3", "python")
except OSError as error:
    print(error)
print("made")
