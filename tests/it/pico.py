"""A board that is made with nothing of ours: it answers as pipe.pico.sh does, and sends ping@pico.sh all the time.

Arguments: the host key's file, and a folder. It prints its port, and notes in the folder each ping and each answer to one,
which nobody asked for. When the folder has a file `close`, it removes that and closes all connections. Lines travel as raw
bytes: several in a chunk, one in pieces.
"""
import os
import socket
import sys
import threading
import time

import paramiko
from paramiko.common import MSG_REQUEST_FAILURE, MSG_REQUEST_SUCCESS

FOLDER = sys.argv[2]
PIPES = {}
TRANSPORTS = []
LOCK = threading.Lock()
# How often ping@pico.sh is sent, and how long bytes are collected before they go out together, in seconds.
PING_EVERY = 0.05
COLLECTED = 0.01
PIECE = 700


def note(name):
    with LOCK, open(os.path.join(FOLDER, name), "ab") as file:
        file.write(b".")


class Transport(paramiko.Transport):
    def answered(self, _message):
        note("unasked")

    _handler_table = dict(paramiko.Transport._handler_table)
    _handler_table[MSG_REQUEST_SUCCESS] = answered
    _handler_table[MSG_REQUEST_FAILURE] = answered


class Board(paramiko.ServerInterface):
    def get_allowed_auths(self, username):
        return "publickey"

    def check_auth_publickey(self, username, key):
        return paramiko.AUTH_SUCCESSFUL

    def check_channel_request(self, kind, chanid):
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel, command):
        threading.Thread(target=run, args=(channel, command.decode().split()), daemon=True).start()
        return True


def run(channel, words):
    time.sleep(0.05)  # after the answer to the request
    if words[0] == "user":
        channel.sendall(b"alice\r\nid\r\n2026-01-01T00:00:00Z\r\n")
    elif words[0] == "ls":
        channel.sendall(listing().replace("\n", "\r\n").encode())
    elif words[0] == "pipe":
        pipe(channel, words[1], "-r" in words[2:])
        return
    channel.send_exit_status(0)
    channel.close()


def listing():
    with LOCK:
        topics = {topic: len(readers) for topic, readers in PIPES.items() if readers}
    if not topics:
        return "no pubsub channels found\n"
    lines = ["Channel Information"]
    for topic, readers in topics.items():
        lines += [f"- alice/{topic}:", "  Pipes:"] + ["  - 0123abcd (alice@127.0.0.1:40000)"] * readers
    return "\n".join(lines) + "\n"


class Reader:
    """One end of a topic. What goes to it is collected for a moment, so that lines are joined, and cut where no line ends."""

    def __init__(self, channel):
        self.channel = channel
        self.bytes = b""
        self.changed = threading.Condition()
        threading.Thread(target=self.send, daemon=True).start()

    def give(self, data):
        with self.changed:
            self.bytes += data
            self.changed.notify()

    def send(self):
        try:
            while True:
                with self.changed:
                    self.changed.wait_for(lambda: self.bytes)
                time.sleep(COLLECTED)
                with self.changed:
                    data, self.bytes = self.bytes, b""
                for at in range(0, len(data), PIECE):
                    self.channel.sendall(data[at : at + PIECE])
        except OSError:
            pass


def pipe(channel, topic, echo):
    reader = Reader(channel)
    with LOCK:
        PIPES.setdefault(topic, []).append(reader)
    try:
        while data := channel.recv(32768):
            with LOCK:
                readers = [one for one in PIPES[topic] if echo or one is not reader]
            for one in readers:
                one.give(data)
    finally:
        with LOCK:
            PIPES[topic].remove(reader)


def serve(client):
    transport = Transport(client)
    transport.add_server_key(paramiko.Ed25519Key.from_private_key_file(sys.argv[1]))
    transport.start_server(server=Board())
    with LOCK:
        TRANSPORTS.append(transport)
    while transport.is_active():
        time.sleep(PING_EVERY)
        if transport.is_authenticated():
            transport.global_request("ping@pico.sh", wait=False)
            note("pings")


def close_when_told():
    order = os.path.join(FOLDER, "close")
    while True:
        time.sleep(0.02)
        if os.path.exists(order):
            with LOCK:
                closing, TRANSPORTS[:] = TRANSPORTS[:], []
            for transport in closing:
                transport.close()
            os.remove(order)


def main():
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=close_when_told, daemon=True).start()
    while True:
        client, _ = listener.accept()
        threading.Thread(target=serve, args=(client,), daemon=True).start()


main()
