# {"verdict": ["DENIED"]}
import os
for call in (os.setuid, os.setgid, os.seteuid):
    try:
        call(0)
        print("root")
    except OSError as error:
        print(error)
print(os.getuid())
