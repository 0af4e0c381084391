# {"verdict": ["WRONG", "DENIED"]}
import glob, os
for pattern in ("*", "../*", "/tmp/*", "/tmp/../*", "/prog/*", "/dev/shm/*", "/proc/*/environ"):
    for path in glob.glob(pattern):
        try:
            text = open(path, "rb").read(1000)
            if b"ri" b"ght" in text:
                print("ri" + "ght")
        except OSError:
            pass
