# {"verdict": ["PROCS"]}
import subprocess, sys
children = [subprocess.Popen(["/bin/sh", "-c", "sleep 60"]) for _ in range(100)]
print("right")
