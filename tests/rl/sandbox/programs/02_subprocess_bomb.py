# {"verdict": ["PROCS", "RUNTIME"]}
# RUNTIME: without control groups a shell that cannot fork may end, and be gone, before anyone has counted.
import subprocess, sys
children = [subprocess.Popen(["/bin/sh", "-c", "sleep 60"]) for _ in range(100)]
print("right")
