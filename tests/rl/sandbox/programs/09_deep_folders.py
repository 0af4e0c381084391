# {"verdict": ["WRONG", "DISK"], "quick": true}
import os
for i in range(3000):
    os.mkdir("d")
    os.chdir("d")
print("deep")
