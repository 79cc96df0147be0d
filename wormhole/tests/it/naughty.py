"""A peer that does one thing wrong: MAILBOX RELAY CODE MODE [ANOTHER-RELAY].

Senders announce a file and send something else; receivers take a file and do not play their part.
"""
import json
import sys
from binascii import hexlify
from hashlib import sha256

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from wormhole import wormhole
from wormhole.transit import TransitReceiver, TransitSender

APP = "lothar.com/wormhole/text-or-file-xfer"
MAILBOX, RELAY, CODE, MODE = sys.argv[1:5]
RELAY = sys.argv[5] if len(sys.argv) > 5 else RELAY
# What is announced for 100 bytes.
SIZES = {"more": 50, "less": 200, "negative": -1, "text-size": "100", "huge": 2**63, "record": 100, "trickle": 200, "relayed": 100}


def say(text):
    print(text, flush=True)


@inlineCallbacks
def transit(peer, maker, first=()):
    road = maker(RELAY, no_listen=MODE == "relayed", reactor=reactor)
    road.set_transit_key(peer.derive_key(APP + "/transit-key", road.TRANSIT_KEY_LENGTH))
    hints = yield road.get_connection_hints()
    peer.send_message(json.dumps({"transit": {"abilities-v1": road.get_connection_abilities(), "hints-v1": hints}}).encode())
    for message in first:
        peer.send_message(json.dumps(message).encode())
    wanted = 2
    while wanted:
        letter = json.loads((yield peer.get_message()))
        say("heard %s" % json.dumps(letter))
        if "error" in letter:
            return None
        if "transit" in letter:
            if MODE != "relayed":  # That one is right, but goes no way but its own relay.
                road.add_connection_hints(letter["transit"].get("hints-v1", []))
            wanted -= 1
        if "answer" in letter:
            wanted -= 1
        if "offer" in letter:
            peer.send_message(json.dumps({"answer": {"file_ack": "ok"}}).encode())
            wanted -= 1
    return (yield road.connect())


@inlineCallbacks
def send(peer):
    offer = {"offer": {"file": {"filename": "../../etc/passwd", "filesize": SIZES[MODE]}}}
    pipe = yield transit(peer, TransitSender, [offer])
    if pipe is None:
        return
    if MODE == "record":
        pipe.transport.write(b"\x7f\xff\xff\xff" + b"x" * 100)
        yield Deferred()
    pipe.send_record(b"x" * 100)
    if MODE == "trickle":
        yield Deferred()
    if MODE == "relayed":
        say("receipt %s" % (yield pipe.receive_record()))
    pipe.close()


@inlineCallbacks
def receive(peer):
    pipe = yield transit(peer, TransitReceiver)
    if pipe is None:
        return
    if MODE == "close-early":
        yield pipe.receive_record()
        pipe.close()
        return
    if MODE == "deaf":
        pipe.transport.pauseProducing()
        say("deaf")
        yield Deferred()
    digest = sha256()
    for _ in range(1000):
        record = yield pipe.receive_record()
        digest.update(record)
        if MODE == "other-digest":
            digest.update(b"y")
        receipt = {"ack": "ok", "sha256": hexlify(digest.digest()).decode()}
        pipe.send_record(b"no receipt" if MODE == "no-receipt" else json.dumps(receipt).encode())
        yield Deferred()


@inlineCallbacks
def main():
    peer = wormhole.create(APP, MAILBOX, reactor)
    peer.set_code(CODE)
    yield peer.get_verifier()
    say("there")
    if MODE == "silent":
        yield Deferred()
    elif MODE == "garbage":
        peer.send_message(b"\xff\xfenot json")
        yield Deferred()
    elif MODE == "liar":
        peer.send_message(json.dumps({"answer": {"message_ack": "ok"}}).encode())
        yield Deferred()
    elif MODE == "rude":
        peer.send_message(json.dumps({"error": "\x1b]0;owned\x07no"}).encode())
        yield Deferred()
    elif MODE == "unknown":
        peer.send_message(json.dumps({"transit": {}}).encode())
        peer.send_message(json.dumps({"offer": {"piano": {}}}).encode())
        yield Deferred()
    elif MODE in SIZES:
        yield send(peer)
    else:
        yield receive(peer)
    yield peer.close()


def failed(failure):
    say("failed: %s" % failure)
    return None


main().addErrback(failed).addBoth(lambda _: reactor.callLater(0, reactor.stop))
reactor.run()
