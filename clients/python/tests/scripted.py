"""A server that does what a test says, in place of a sidecar."""

from __future__ import annotations

import os
import select
import socket
import struct
import tempfile
import threading
from typing import Any, Callable, List

import msgpack

from cachesidecar import _wire

WELCOME = {
    "v": 1, "node": "n", "server": "t", "epoch": 7, "features": [], "boot": {"id": "", "now_ns": 0},
    "limits": {"key": 1024, "value": 1000, "frame": 70000}, "hash": {"name": "xxh3", "seed": 0, "partitions": 16384},
}


def packed(*answer: Any) -> bytes:
    body = msgpack.packb(list(answer))
    return struct.pack(">I", len(body)) + bytes(body)


class Peer:
    """One connection, after HELLO."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(20)

    def request(self) -> List[Any]:
        """Return the next request; an empty list at the end. The PING of a doubt is answered here."""
        while True:
            request = self.next()
            if request[:2] != [_wire.PING_ID, _wire.PING]:
                return request
            self.answer(_wire.PING_ID, 0)

    def wait(self, event: threading.Event) -> None:
        """Wait for an event. The PING of a doubt is answered meanwhile, and no other request may come."""
        while not event.is_set():
            if select.select([self.sock], [], [], 0.005)[0]:
                request = self.next()
                assert request[:2] == [_wire.PING_ID, _wire.PING], request
                self.answer(_wire.PING_ID, 0)

    def next(self) -> List[Any]:
        """Return the next request, whatever it is; an empty list at the end."""
        head = self.exactly(4)
        return list(msgpack.unpackb(self.exactly(int.from_bytes(head, "big")))) if head else []

    def exactly(self, n: int) -> bytes:
        data = b""
        while len(data) < n:
            try:
                more = self.sock.recv(n - len(data))
            except OSError:
                return b""
            if not more:
                return b""
            data += more
        return data

    def answer(self, *answer: Any) -> None:
        self.send(packed(*answer))

    def send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError:
            pass


class Server:
    """Accepts connections, greets, and lets a function serve each on a thread of its own."""

    def __init__(self, serve: Callable[[Peer, int], None]) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "s.sock")
        self.serve = serve
        self.n = 0
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(16)
        self.threads: List[threading.Thread] = []
        self.peers: List[Peer] = []
        self.start(self.accept)

    def start(self, run: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.n += 1  # before anything is answered on it
            self.start(self.greet, Peer(sock), self.n - 1)

    def greet(self, peer: Peer, n: int) -> None:
        self.peers.append(peer)
        with peer.sock:
            hello = peer.request()
            if hello:
                peer.answer(hello[0], 0, WELCOME)
                leaving = peer.next()  # it waits
                assert leaving[:2] in ([_wire.LEAVING_ID, _wire.LEAVING], []), leaving
                self.serve(peer, n)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: Any) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for peer in self.peers:
            try:
                peer.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self.threads:
            thread.join(20)
        self.folder.cleanup()
