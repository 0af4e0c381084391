# {"verdict": ["OK"]}
import getpass, os, pathlib, socket
assert getpass.getuser() == "sandbox" and pathlib.Path.home() == pathlib.Path("/box")
assert os.getcwd() == "/box" and socket.gethostname() == "sandbox" and os.getuid() == os.geteuid() == os.getgid() > 0
assert open("/proc/self/status").read().count("CapEff:\t0000000000000000") == 1
print("right")
