# {"verdict": ["OK"]}
open("helper.py", "w").write("word = 'right'\n")
import helper
print(helper.word)
