"""Sends to the internet until it is answered "enough", and prints all that comes to the port from which it sends."""
import socket

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 47001))
s.settimeout(0.2)
found = b""
while found != b"enough":
    s.sendto(b"call me", ("203.0.113.9", 8001))
    try:
        found = s.recv(200)
        print("got " + found.decode(), flush=True)
    except socket.timeout:
        pass
print("that was all")
