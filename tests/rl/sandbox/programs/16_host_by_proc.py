# {"verdict": ["DENIED"]}
import os
for name in ("/proc/kcore", "/proc/kallsyms", "/proc/sysrq-trigger", "/proc/kmsg", "/proc/config.gz", "/proc/keys"):
    try:
        with open(name, "rb") as file:
            print(name, file.read(10))
    except OSError as error:
        print(error)
