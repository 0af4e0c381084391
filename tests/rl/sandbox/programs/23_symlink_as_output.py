# {"verdict": ["DENIED"]}
import os
os.symlink("@SECRET@", "output.txt")
try:
    with open("output.txt", "w") as file:
        file.write("changed")
except OSError as error:
    print(error)
print("output.txt")
