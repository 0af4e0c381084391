# {"verdict": ["DENIED", "WRONG"]}
import os
for number in ((1, 1), (8, 0), (254, 0)):
    try:
        os.mknod("device", 0o060666, os.makedev(*number))
        print(os.open("device", os.O_RDONLY))
    except OSError as error:
        print(error)
