# {"verdict": ["WRONG"], "quick": true}
import os
for i in range(10000):
    os.mkdir("d")
    os.chdir("d")
print("deep")
