# {"verdict": ["DENIED"]}
import socket
server = socket.socket()
server.bind(("0.0.0.0", 8099))
server.listen()
print("listening")
