"""A board that is made with nothing of ours: it answers as pipe.pico.sh does, and sends ping@pico.sh all the time.

Arguments: the host key's file, and a folder. It prints its port, and notes in the folder each ping and each answer to one,
which nobody asked for.
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
LOCK = threading.Lock()


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
        channel.sendall(b"no pubsub channels found\r\n")
    elif words[0] == "pipe":
        pipe(channel, words[1])
        return
    channel.send_exit_status(0)
    channel.close()


def pipe(channel, topic):
    """Raw chunks go to everybody, in pieces as they come."""
    with LOCK:
        PIPES.setdefault(topic, []).append(channel)
    while True:
        data = channel.recv(32768)
        if not data:
            break
        with LOCK:
            others = list(PIPES[topic])
        for other in others:
            for at in range(0, len(data), 700):
                other.sendall(data[at : at + 700])
    with LOCK:
        PIPES[topic].remove(channel)


def serve(client):
    transport = Transport(client)
    transport.add_server_key(paramiko.Ed25519Key.from_private_key_file(sys.argv[1]))
    transport.start_server(server=Board())
    while transport.is_active():
        time.sleep(0.05)
        if transport.is_authenticated():
            transport.global_request("ping@pico.sh", wait=False)
            note("pings")


def main():
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        client, _ = listener.accept()
        threading.Thread(target=serve, args=(client,), daemon=True).start()


main()
