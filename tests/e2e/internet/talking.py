"""Talks to the internet for as long as it is there, then tries everybody else: WORD."""
import socket
import sys
import time


def answer(address):
    s = socket.create_connection((address, 8000), 5)
    return s.recv(50).decode()


try:
    while True:
        answer("203.0.113.9")
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(sys.argv[1].encode(), ("203.0.113.9", 8001))
        time.sleep(0.1)
except OSError:
    print("nobody any more")
for address in ("127.0.0.1", "10.9.0.2", "10.9.0.1", "198.51.100.7", "192.0.0.1", "203.0.113.9"):
    try:
        print(answer(address))
    except OSError:
        pass
print("that was all")
