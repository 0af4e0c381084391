# {"verdict": ["OK"]}
import socket, os
a, b = socket.socketpair()
a.send(b"right")
print(b.recv(10).decode())
