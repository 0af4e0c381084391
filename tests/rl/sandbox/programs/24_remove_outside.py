# {"verdict": ["DENIED"]}
import os
for call, path in ((os.remove, "/usr/bin/python3"), (os.rmdir, "/usr"), (os.mkdir, "/new"), (os.remove, "@SECRET@")):
    try:
        call(path)
        print("done")
    except OSError as error:
        print(error)
