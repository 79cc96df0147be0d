"""A mailbox server that does one thing wrong: MODE. Prints its port."""
import json
import sys

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from spake2 import SPAKE2_Symmetric
from twisted.internet import reactor

MODE = sys.argv[-1]
WELCOMES = {
    "mute": None,
    "hashcash": {"permission-required": {"hashcash": {"bits": 100, "resource": "x"}}},
    "login": {"permission-required": {"a passport": {}}},
}


class Server(WebSocketServerProtocol):
    def say(self, **message):
        self.sendMessage(json.dumps(message).encode())

    def onOpen(self):
        welcome = WELCOMES.get(MODE, {})
        if MODE == "garbage":
            self.sendMessage(b"\xff\xfe" * 1000, isBinary=True)
        elif MODE == "large":
            self.sendMessage(b'"' + b"x" * (96 << 20) + b'"')
        elif welcome is not None:
            self.say(type="welcome", welcome=welcome)

    def from_peer(self, phase, body):
        body = "no hex" if MODE == "no hex" else body.hex()
        self.say(type="message", side="theirs", phase=phase, body=body, id="1", server_rx=1.0, server_tx=1.0)

    def onMessage(self, payload, _):
        message = json.loads(payload)
        self.say(type="ack", id=message.get("id", ""), server_tx=1.0)
        kind = message["type"]
        if kind == "claim" and MODE in ("crowded", "odd-error"):
            self.say(type="error", error="crowded" if MODE == "crowded" else "\x1b[31mno", orig=message)
        elif kind == "claim":
            self.say(type="claimed", mailbox="m")
        elif kind == "release":
            self.say(type="released")
        elif kind == "add" and message["phase"] == "pake":
            # That of somebody who does not know the password, but for "reflection": its own back.
            stranger = json.dumps({"pake_v1": SPAKE2_Symmetric(b"x").start().hex()}).encode()
            pakes = {"no key": b"{}", "reflection": bytes.fromhex(message["body"])}
            self.from_peer("pake", pakes.get(MODE, stranger))
            self.from_peer("version", b"short" if MODE == "short" else b"x" * 100)


factory = WebSocketServerFactory()
factory.protocol = Server
port = reactor.listenTCP(0, factory, interface="127.0.0.1")
print("port", port.getHost().port, flush=True)
reactor.run()
