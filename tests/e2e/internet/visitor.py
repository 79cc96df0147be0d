"""Tries to reach everybody in every way: INTERFACE WHO ABSTRACT-SOCKET. Prints a line "WAY ADDRESS: what came of it" for each."""
import errno
import os
import socket
import struct
import sys
import threading

INTERFACE, WHO, ABSTRACT = sys.argv[1:4]
NEAR = ["127.0.0.1", "10.9.0.2", "198.51.100.7", "10.9.0.1", "198.51.100.1", "192.0.2.1"]
# The jail's own router, and what else is nobody's.
ROUTER = ["192.0.0.1", "192.0.0.2", "192.0.0.5", "192.0.0.53", "169.254.169.254"]
# The internet, and the outer address of the network's router.
FAR = ["203.0.113.9", "203.0.113.1"]
GROUPS = ["239.1.2.3", "224.0.0.251", "255.255.255.255", "10.9.0.255", "198.51.100.15"]
INDEXES = range(1, 7)
SO_BINDTODEVICE, IP_PKTINFO, IP_UNICAST_IF = 25, 8, 50


def patience(address):
    return 30 if address in FAR else 10 if WHO == "control" and address in NEAR else 2


def named(error):
    return errno.errorcode.get(error.errno, str(error)) if isinstance(error, OSError) and error.errno else type(error).__name__


def attempt(way, address, work):
    try:
        found = work()
    except Exception as error:
        found = named(error)
    os.write(1, ("%s %s: %s\n" % (way, address, found)).encode())


def tcp(address, prepare=lambda s: None, family=socket.AF_INET):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.settimeout(patience(address))
    prepare(s)
    s.connect((address, 8000))
    return s.recv(50).decode()


def udp(way, address, port=8001, options=(), info=None):
    """Sends; whether somebody answers."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(patience(address))
    for option in options:
        s.setsockopt(*option)
    said = ("%s by %s to %s" % (WHO, way, address)).encode()
    if info is None:
        s.sendto(said, (address, port))
    else:
        s.sendmsg([said], [(socket.IPPROTO_IP, IP_PKTINFO, info)], 0, (address, port))
    return s.recvfrom(50)[0].decode()


def device(s):
    s.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, INTERFACE.encode())


def all_of_it():
    for address in NEAR + ROUTER + FAR:
        yield "tcp", address, lambda a=address: tcp(a)
        yield "tcp-device", address, lambda a=address: tcp(a, device)
        yield "udp", address, lambda a=address: udp("udp", a)
        yield "udp-device", address, lambda a=address: udp("udp-device", a, options=[(socket.SOL_SOCKET, SO_BINDTODEVICE, INTERFACE.encode())])
        for index in INDEXES:
            number = struct.pack("!I", index)
            yield "tcp-unicast-%d" % index, address, lambda a=address, n=number: tcp(a, lambda s: s.setsockopt(socket.IPPROTO_IP, IP_UNICAST_IF, n))
            yield "udp-unicast-%d" % index, address, lambda a=address, n=number, w="udp-unicast-%d" % index: udp(w, a, options=[(socket.IPPROTO_IP, IP_UNICAST_IF, n)])
            info = struct.pack("=I8x", index)
            yield "udp-pktinfo-%d" % index, address, lambda a=address, i=info, w="udp-pktinfo-%d" % index: udp(w, a, info=i)
    broadcast = (socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    for group in GROUPS:
        yield "multicast", group, lambda g=group: udp("multicast", g, 8002, [broadcast])
        yield "multicast-device", group, lambda g=group: udp("multicast-device", g, 8002, [broadcast, (socket.SOL_SOCKET, SO_BINDTODEVICE, INTERFACE.encode())])
        for index in INDEXES:
            request = struct.pack("=4s4si", b"", b"", index)
            yield "multicast-if-%d" % index, group, lambda g=group, r=request, w="multicast-if-%d" % index: udp(w, g, 8002, [broadcast, (socket.IPPROTO_IP, socket.IP_MULTICAST_IF, r)])
    yield "tcp6", "::1", lambda: tcp("::1", family=socket.AF_INET6)
    yield "tcp6-mapped", "10.9.0.1", lambda: tcp("::ffff:10.9.0.1", family=socket.AF_INET6)
    yield "ping", "203.0.113.9", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) and "made"
    yield "raw", "203.0.113.9", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) and "made"
    yield "packet", INTERFACE, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW) and "made"
    yield "netlink", "routes", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) and "made"
    yield "abstract", ABSTRACT, abstract


def abstract():
    s = socket.socket(socket.AF_UNIX)
    s.connect("\0" + ABSTRACT)
    return s.recv(50).decode()


work = list(all_of_it())
threads = [threading.Thread(target=lambda part=part: [attempt(*case) for case in work[part::60]]) for part in range(60)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
attempt("name", "friend.example", lambda: socket.gethostbyname("friend.example"))
# Last, when everything that was sent before has had its time.
attempt("tcp-last", FAR[0], lambda: tcp(FAR[0]))
os.write(1, b"visited\n")
