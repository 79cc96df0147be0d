"""Prints the nameplates that somebody holds on the mailbox server."""
import json
import sys

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet import reactor

URL = sys.argv[1]


class Client(WebSocketClientProtocol):
    def say(self, **message):
        self.sendMessage(json.dumps(message).encode())

    def onMessage(self, payload, _):
        message = json.loads(payload)
        if message["type"] == "welcome":
            self.say(type="bind", appid="lothar.com/wormhole/text-or-file-xfer", side="looks-on")
            self.say(type="list")
        elif message["type"] == "nameplates":
            print("held:", *sorted(one["id"] for one in message["nameplates"]), flush=True)
            reactor.stop()


factory = WebSocketClientFactory(URL)
factory.protocol = Client
host, port = URL.removeprefix("ws://").split("/")[0].split(":")
reactor.connectTCP(host, int(port), factory)
reactor.run()
