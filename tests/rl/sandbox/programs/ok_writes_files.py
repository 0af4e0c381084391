# {"verdict": ["OK"]}
import os, tempfile
with tempfile.TemporaryDirectory() as folder:
    with open(os.path.join(folder, "x"), "w") as file:
        file.write("right")
    text = open(os.path.join(folder, "x")).read()
open("here.txt", "w").write(text)
os.rename("here.txt", "there.txt")
print(open("there.txt").read())
