# {"verdict": ["DENIED"]}
import socket
try:
    print(socket.getaddrinfo("example.org", 80))
except OSError as error:
    print(error)
