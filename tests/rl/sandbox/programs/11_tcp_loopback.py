# {"verdict": ["DENIED"]}
import socket
for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    try:
        socket.socket(family, socket.SOCK_STREAM).connect((host, @PORT@))
        print("connected")
    except OSError as error:
        print(error)
