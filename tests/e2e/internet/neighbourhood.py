"""A machine, the network that it is in, and an internet: three network namespaces with services, of which this process is the
machine. Run in fresh network and mount namespaces with all rights over them: SCRATCH-FOLDER NAME-SERVER.

  machine   127.0.0.1, 10.9.0.2/24 and, public, 198.51.100.7/28
  lan       10.9.0.1/24, 198.51.100.1/28, and 192.0.2.1, to which the machine has a route
  internet  203.0.113.9

Says "ready", then what its services hear. Ends with its standard input.
"""
import os
import pathlib
import socket
import subprocess
import sys
import threading

INTERNET = "203.0.113.9"
GROUPS = ["239.1.2.3", "224.0.0.251"]


def say(text):
    os.write(1, (text + "\n").encode())


def every(work):
    threading.Thread(target=work, daemon=True).start()


def tcp(name, family, address):
    server = socket.socket(family, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    server.bind(address)
    server.listen(64)

    def serve():
        while True:
            peer, _ = server.accept()
            peer.sendall(b"reached " + name.encode())
            peer.close()

    every(serve)


def udp(name, port, groups=()):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("", port))
    for group in groups:
        server.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + socket.inet_aton("10.9.0.1" if name == "lan" else "10.9.0.2"))

    def serve():
        while True:
            data, peer = server.recvfrom(2000)
            say("%s heard %s from port %d" % (name, data.decode(errors="replace"), peer[1]))
            enough = pathlib.Path(SCRATCH, "enough").exists()
            server.sendto(b"enough" if enough else b"reached " + name.encode(), peer)

    every(serve)


def names(name, address):
    """A name server that knows one answer."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, 53))

    def serve():
        while True:
            query, peer = server.recvfrom(2000)
            question = query[12 : query.index(b"\0", 12) + 5]
            a = question[-4:-2] == b"\0\1"
            answer = query[:2] + b"\x81\x80\0\1" + (b"\0\1" if a else b"\0\0") + b"\0\0\0\0" + question
            if a:
                answer += b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(INTERNET)
            say("%s was asked for a name" % name)
            server.sendto(answer, peer)

    every(serve)


def services(name):
    tcp(name, socket.AF_INET, ("", 8000))
    if socket.has_ipv6 and os.path.exists("/proc/net/if_inet6"):
        tcp(name, socket.AF_INET6, ("::", 8000))
    udp(name, 8001)
    if name != "internet":
        udp(name, 8002, GROUPS)
        names(name, "10.9.0.1" if name == "lan" else "127.0.0.53")
    if name == "machine":
        tcp(name, socket.AF_UNIX, "\0p2p-neighbour-%d" % os.getpid())


def elsewhere(name):
    """A namespace with a process of this script that has these services once it is told so."""
    child = subprocess.Popen(["unshare", "-n", sys.executable, __file__, SCRATCH, "serve", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"there\n"
    return child


def ip(line, at=None):
    enter = ["nsenter", "-t", str(at.pid), "-n"] if at else []
    subprocess.run(enter + ["ip"] + line.split(), check=True)


def forward(child):
    for line in child.stdout:
        os.write(1, line)


def machine(name_server):
    lan, internet = elsewhere("lan"), elsewhere("internet")
    for there in (lan, internet, None):
        ip("link set lo up", there)
    ip("link add lan0 type veth peer name machine netns %d" % lan.pid)
    ip("link add far type veth peer name lan netns %d" % internet.pid, lan)
    for address in ("10.9.0.2/24", "198.51.100.7/28"):
        ip("address add %s dev lan0" % address)
    for address in ("10.9.0.1/24", "198.51.100.1/28", "192.0.2.1/32"):
        ip("address add %s dev machine" % address, lan)
    ip("address add 203.0.113.1/24 dev far", lan)
    ip("address add %s/24 dev lan" % INTERNET, internet)
    ip("link set lan0 up")
    ip("link set machine up", lan)
    ip("link set far up", lan)
    ip("link set lan up", internet)
    ip("route add 192.0.2.0/24 via 10.9.0.1")
    ip("route add default via 10.9.0.1")
    ip("route add default via 203.0.113.1", internet)
    subprocess.run(["nsenter", "-t", str(lan.pid), "-n", "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"], check=True)
    file = pathlib.Path(SCRATCH, "resolv.conf")
    file.write_text("nameserver %s\n" % name_server)
    subprocess.run(["mount", "--bind", str(file), os.path.realpath("/etc/resolv.conf")], check=True)
    services("machine")
    for child in (lan, internet):
        child.stdin.write(b"go\n")
        child.stdin.flush()
        assert child.stdout.readline() == b"serving\n"
        every(lambda child=child: forward(child))
    say("the others are %d and %d" % (lan.pid, internet.pid))
    say("ready")
    sys.stdin.read()
    for child in (lan, internet):
        child.kill()


SCRATCH = sys.argv[1]
if len(sys.argv) == 3:
    machine(sys.argv[2])
else:
    say("there")
    sys.stdin.readline()
    services(sys.argv[3])
    say("serving")
    sys.stdin.read()
