# A switch of an Ethernet, in user space: what a host sends goes to all other hosts, later, or not at all.
#
#   python3 switch.py NAME:PID:ADDRESS ...   each host: the name of its port, a process in its network namespace, its address
#
# Prints "ready", then obeys lines of standard input: "delay MILLISECONDS", "loss PER_MILLE", "cut NAME", "join NAME",
# each answered by "ok". Needs nothing of the kernel but veth and packet sockets, so that no module for delay is missed.
import array, fcntl, heapq, random, select, socket, struct, subprocess, sys, time

ETH_P_ALL, PACKET_OUTGOING, SIOCETHTOOL, ETHTOOL_STXCSUM = 3, 4, 0x8946, 0x17


def run(*command):
    subprocess.run(command, check=True)


def compute_checksums(interface):
    """Without this the kernel leaves checksums to a card that is not there, and makes frames that no wire carries."""
    value = array.array("B", struct.pack("II", ETHTOOL_STXCSUM, 0))
    request = struct.pack("16sP16x", interface.encode(), value.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCETHTOOL, request)


def plug_in(name, pid, address):
    far = "e" + name
    run("ip", "link", "add", "name", name, "type", "veth", "peer", "name", far)
    compute_checksums(far)
    run("ip", "link", "set", far, "netns", pid)
    run("ip", "link", "set", name, "up")
    inside = ["nsenter", "-t", pid, "-n", "ip"]
    run(*inside, "link", "set", "lo", "up")
    run(*inside, "link", "set", far, "name", "eth0")
    run(*inside, "address", "add", address + "/24", "dev", "eth0")
    run(*inside, "link", "set", "eth0", "up")
    port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    port.bind((name, 0))
    port.setblocking(False)
    return port


ports = {name: plug_in(name, pid, address) for name, pid, address in (host.split(":") for host in sys.argv[1:])}
cut, delay, loss, number, waiting = set(), 0.0, 0, 0, []
print("ready", flush=True)
while True:
    timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
    readable, _, _ = select.select([sys.stdin, *ports.values()], [], [], timeout)
    for name, port in ports.items():
        if port not in readable:
            continue
        for _ in range(64):
            try:
                frame, (_, _, kind, *_) = port.recvfrom(65536)
            except BlockingIOError:
                break
            if kind == PACKET_OUTGOING or name in cut or random.randrange(1000) < loss:
                continue
            number += 1
            heapq.heappush(waiting, (time.monotonic() + delay, number, name, frame))
    if sys.stdin in readable:
        words = sys.stdin.readline().split()
        if not words:
            break
        if words[0] == "delay":
            delay = int(words[1]) / 1000
        elif words[0] == "loss":
            loss = int(words[1])
        elif words[0] == "cut":
            cut.add(words[1])
        elif words[0] == "join":
            cut.discard(words[1])
        print("ok", flush=True)
    while waiting and waiting[0][0] <= time.monotonic():
        _, _, sender, frame = heapq.heappop(waiting)
        for name, port in ports.items():
            if name not in (sender, *cut):
                try:
                    port.send(frame)
                except OSError:
                    pass  # a full queue loses frames, as that of a real switch does
