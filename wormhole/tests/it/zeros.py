"""A mailbox server with a peer in it that knows the code, and draws its number so that the shared point ends in a zero byte:
CODE PEER. Prints its port.

PEER is "gospake2", which computes another key then, "python", which does not, or "ours", which does neither, but says nothing
that is sealed before the other side has. When the other side's first sealed message can be opened, it says "understood".
"""
import json
import os
import sys
from hashlib import sha256

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from spake2.ed25519_basic import Base, bytes_to_element
from spake2.parameters.ed25519 import ParamsEd25519
from twisted.internet import reactor
from wormhole._key import decrypt_data, derive_phase_key, encrypt_data

APP = b"lothar.com/wormhole/text-or-file-xfer"
CODE, PEER = sys.argv[-2].encode(), sys.argv[-1]
SIDE = "theirs"


def meet(their_message):
    """Our message for theirs, and the key."""
    password = ParamsEd25519.group.password_to_scalar(CODE)
    step = bytes_to_element(their_message).add(ParamsEd25519.S.scalarmult(-password))
    number = ParamsEd25519.group.random_scalar(os.urandom)
    shared = step.scalarmult(number)
    ours = Base.scalarmult(number).add(ParamsEd25519.S.scalarmult(password))
    while shared.to_bytes()[-1] != 0:
        shared, ours = shared.add(step), ours.add(Base)
    shared, ours = shared.to_bytes(), ours.to_bytes()
    length = len(shared.rstrip(b"\0")) if PEER == "gospake2" else 32
    points = [point[:length] for point in [*sorted([ours, their_message]), shared]]
    known = [sha256(CODE).digest(), sha256(APP).digest()]
    return ours, sha256(b"".join(known + points)).digest()


class Server(WebSocketServerProtocol):
    def say(self, **message):
        self.sendMessage(json.dumps(message).encode())

    def from_peer(self, phase, body):
        self.say(type="message", side=SIDE, phase=phase, body=body.hex(), id="1", server_rx=1.0, server_tx=1.0)

    def sealed(self, phase, **text):
        key = derive_phase_key(self.key, SIDE, phase)
        self.from_peer(phase, encrypt_data(key, json.dumps(text).encode()))

    def onOpen(self):
        self.say(type="welcome", welcome={})

    def onMessage(self, payload, _):
        message = json.loads(payload)
        self.say(type="ack", id=message.get("id", ""), server_tx=1.0)
        kind, phase = message["type"], message.get("phase")
        if kind == "bind":
            self.side = message["side"]
        elif kind == "claim":
            self.say(type="claimed", mailbox="m")
        elif kind == "release":
            self.say(type="released")
        elif kind == "close":
            self.say(type="closed")
        elif phase == "pake":
            theirs = bytes.fromhex(json.loads(bytes.fromhex(message["body"]))["pake_v1"])
            ours, self.key = meet(theirs[1:])
            self.from_peer("pake", json.dumps({"pake_v1": (b"S" + ours).hex()}).encode())
            if PEER != "ours":
                self.sealed("version", app_versions={})
        elif phase == "version":
            decrypt_data(derive_phase_key(self.key, self.side, phase), bytes.fromhex(message["body"]))
            if PEER == "ours":
                self.sealed("version", app_versions={})
            self.sealed("0", error="understood")


factory = WebSocketServerFactory()
factory.protocol = Server
port = reactor.listenTCP(0, factory, interface="127.0.0.1")
print("port", port.getHost().port, flush=True)
reactor.run()
