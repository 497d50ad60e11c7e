"""Batches of writes whose connection ends in the middle: unsent is only what the system did not take whole."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any, Callable, Dict, List, Tuple, Union

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
        self.taken: List[str] = []  # keys of the requests that the system took whole on the first connection
        self.again: List[str] = []  # and those of the other ones

    def serve(self, peer: Peer, n: int) -> None:
        if n > 0:
            request = peer.request()
            while request:
                self.again.append(self.key(request))
                peer.answer(request[0], 0, 5)
                request = peer.request()
            return
        data = peer.exactly(READ)
        peer.sock.shutdown(socket.SHUT_RD)
        requests, left = whole(data)
        for request in requests:
            peer.answer(request[0], 0, 5)
        more = peer.sock.recv(1 << 20)  # what the system has taken can still be read
        while more:
            left += more
            more = peer.sock.recv(1 << 20)
        self.taken = [self.key(request) for request in requests + whole(left)[0]]

    def key(self, request: List[Any]) -> str:
        assert request[1] == SET
        return str(request[4].decode())


def whole(data: bytes) -> Tuple[List[List[Any]], bytes]:
    """Return the requests that are whole, and the rest."""
    requests = []
    while len(data) >= 4 and len(data) >= 4 + int.from_bytes(data[:4], "big"):
        end = 4 + int.from_bytes(data[:4], "big")
        requests.append(list(msgpack.unpackb(data[4:end])))
        data = data[end:]
    return requests, data


@pytest.mark.parametrize("set_many", [sync_set_many, async_set_many], ids=["sync", "async"])
def test_only_what_was_not_taken_whole_is_sent_again(set_many: Callable[[str], Any]) -> None:
    cut = Cut()
    with Server(cut.serve) as server:
        with pytest.raises(cs.TimeoutError):  # the outcome of what was taken and not answered
            set_many(server.path)
        assert server.n == 2
    assert len(cut.taken) > 20 and cut.again
    assert cut.taken + cut.again == list(VALUES)  # each once, and in their order


def test_a_batch_of_which_nothing_was_taken_is_sent_again() -> None:
    cut = Cut()
    shut = threading.Event()

    def serve(peer: Peer, n: int) -> None:
        if n == 0:
            peer.sock.shutdown(socket.SHUT_RD)
            shut.set()
            peer.request()
        else:
            cut.serve(peer, n)

    with Server(serve) as server, Client(server.path, shared_memory=False, timeout=20) as client:
        client._link.get(20)
        assert shut.wait(20)
        assert len(client.set_many(VALUES)) == len(VALUES)
        assert cut.again == list(VALUES)
