# {"verdict": ["OK"]}
import subprocess
print(subprocess.check_output("echo ri''ght | tr a-z a-z", shell=True, text=True), end="")
