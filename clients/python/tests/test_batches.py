"""Batches of writes whose connection ends in the middle: unsent is only what the system did not take whole."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Callable, Dict, List, Union

import msgpack
import pytest

import cachesidecar as cs
from cachesidecar import AsyncClient, Client
from scripted import WELCOME, Peer, Server

READ = 100_000  # bytes that the first connection's server takes: less than the system has room for
VALUES: Dict[Union[str, bytes], Any] = {f"k{i}": "x" * 4000 for i in range(200)}  # more than it has room for
SET = 5


@pytest.fixture(autouse=True)
def long_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WELCOME, "limits", {"key": 1024, "value": 1 << 20, "frame": 2 << 20})


def sync_set_many(path: str) -> Any:
    with Client(path, shared_memory=False, timeout=20) as client:
        return client.set_many(VALUES)


def async_set_many(path: str) -> Any:
    async def run() -> Any:
        async with AsyncClient(path, shared_memory=False, timeout=20) as client:
            return await client.set_many(VALUES)

    return asyncio.run(run())


class Cut:
    """Takes a part of what the first connection brings, and as a sidecar that ends answers what has come whole."""

    def __init__(self) -> None:
        self.executed: Dict[str, int] = {}  # by key, how often
        self.first: List[str] = []  # keys of the first connection

    def execute(self, peer: Peer, request: List[Any]) -> None:
        assert request[1] == SET
        key = request[4].decode()
        self.executed[key] = self.executed.get(key, 0) + 1
        peer.answer(request[0], 0, 5)

    def serve(self, peer: Peer, n: int) -> None:
        if n > 0:
            request = peer.request()
            while request:
                self.execute(peer, request)
                request = peer.request()
            return
        data = peer.exactly(READ)
        peer.sock.shutdown(socket.SHUT_RD)
        while len(data) >= 4 and len(data) >= 4 + int.from_bytes(data[:4], "big"):
            length = 4 + int.from_bytes(data[:4], "big")
            self.execute(peer, list(msgpack.unpackb(data[4:length])))
            data = data[length:]
        self.first = list(self.executed)


@pytest.mark.parametrize("set_many", [sync_set_many, async_set_many], ids=["sync", "async"])
def test_only_what_was_not_taken_whole_is_sent_again(set_many: Callable[[str], Any]) -> None:
    cut = Cut()
    with Server(cut.serve) as server:
        with pytest.raises(cs.TimeoutError):  # the outcome of what the system took and nobody read
            set_many(server.path)
        assert server.n == 2
    again = [key for key in cut.executed if key not in cut.first]
    assert len(cut.first) > 20 and again and again[-1] == "k199"  # in their order
    assert not [key for key, times in cut.executed.items() if times > 1]
    taken = int(again[0][1:]) * 4000  # bytes of the values in front of the first one that came again
    assert taken > READ + 50_000, "a request whose last byte was taken came again"


def test_a_batch_of_which_nothing_was_taken_is_sent_again() -> None:
    cut = Cut()

    def serve(peer: Peer, n: int) -> None:
        if n == 0:
            peer.sock.shutdown(socket.SHUT_RD)
            peer.request()
        else:
            cut.serve(peer, n)

    with Server(serve) as server, Client(server.path, shared_memory=False, timeout=20) as client:
        client._link.get(20)
        assert len(client.set_many(VALUES)) == len(VALUES)
        assert len(cut.executed) == len(VALUES) and set(cut.executed.values()) == {1}
