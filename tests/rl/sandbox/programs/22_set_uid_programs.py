# {"verdict": ["WRONG", "DENIED", "RUNTIME"]}
import subprocess
for command in (["/usr/bin/su", "-c", "id"], ["/usr/bin/mount", "-t", "tmpfs", "x", "/tmp"], ["/usr/bin/passwd"]):
    try:
        print(subprocess.run(command, capture_output=True, timeout=2, input=b"").returncode)
    except Exception as error:
        print(error)
