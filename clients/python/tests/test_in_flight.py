"""max_in_flight counts what the sidecar works on: also calls that nobody waits for any more."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any, Iterator, List, Tuple

import pytest

import cachesidecar as cs
from cachesidecar import AsyncClient, Client, _aconnection, _connection
from playing import wait_for
from raw import LIMIT
from scripted import Peer, Server, packed

PING = (1, b"\x01")


class Slow:
    """Answers no request on its first connection before it is told to, or ends it instead."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.ends = False
        self.asked: List[Any] = []

    def __call__(self, peer: Peer, n: int) -> None:
        if n == 0:
            first = [peer.request(), peer.request()]
            self.asked += first
            peer.wait(self.go)
            if self.ends:
                return
            for request in reversed(first):
                self.answer(peer, request)
        while True:
            request = peer.request()
            if not request:
                return
            self.asked.append(request)
            self.answer(peer, request)

    @staticmethod
    def answer(peer: Peer, request: List[Any]) -> None:
        peer.answer(request[0], 0, request[4], 0, 5, 0, 2, 0)


@pytest.mark.parametrize("ends", [False, True], ids=["answered", "ended"])
def test_calls_of_threads_that_time_out_keep_their_places(ends: bool) -> None:
    slow = Slow()
    slow.ends = ends
    with Server(slow) as server, Client(server.path, max_in_flight=2, shared_memory=False, timeout=LIMIT) as client:

        def ask(key: str) -> None:
            with pytest.raises(cs.TimeoutError):
                client.get(key, timeout=0.3)  # long enough that one of the threads leads, and the other one follows

        threads = [threading.Thread(target=ask, args=(key,)) for key in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for _ in range(3):
            with pytest.raises(cs.BusyError, match="2 calls"):
                client.get("c")
        slow.go.set()
        wait_for(lambda: tried(client) == b"d", "a place")
        assert len(slow.asked) == 3 and server.n == 1 + ends
        assert client._link.live is not None and client._link.live.in_flight == 0


def tried(client: Client) -> Any:
    try:
        return client.get("d")
    except cs.BusyError:
        return None


@pytest.mark.parametrize("ends", [False, True], ids=["answered", "ended"])
def test_tasks_that_time_out_or_are_cancelled_keep_their_places(ends: bool) -> None:
    slow = Slow()
    slow.ends = ends

    async def main(path: str) -> None:
        async with AsyncClient(path, max_in_flight=2, shared_memory=False, timeout=LIMIT) as client:
            cancelled = asyncio.ensure_future(client.get("a"))
            with pytest.raises(cs.TimeoutError):
                await client.get("b", timeout=1)
            await until(lambda: len(slow.asked) == 2)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            for _ in range(3):
                with pytest.raises(cs.BusyError, match="2 calls"):
                    await client.get("c")
            slow.go.set()
            while True:
                try:
                    assert await client.get("d") == b"d"
                    break
                except cs.BusyError:
                    await asyncio.sleep(0.001)
            assert len(slow.asked) == 3
            assert client._link.live is not None and client._link.live.in_flight == 0

    with Server(slow) as server:
        asyncio.run(asyncio.wait_for(main(server.path), LIMIT))
        assert server.n == 1 + ends


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.001)


@pytest.fixture
def pair() -> Iterator[Tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(LIMIT)
    yield ours, theirs
    ours.close()
    theirs.close()


def serve(theirs: socket.socket, n: int) -> None:
    """Answer so many requests."""
    peer = Peer(theirs)
    for _ in range(n):
        peer.answer(peer.request()[0], 0)


@pytest.mark.parametrize("many", [False, True])
def test_an_answer_that_lies_there_gives_its_place_back(
    pair: Tuple[socket.socket, socket.socket], many: bool
) -> None:
    """Nobody reads between two calls: a call that finds no place reads first."""
    ours, theirs = pair
    conn = _connection.Connection(ours, 1)
    with pytest.raises(cs.TimeoutError):
        conn.call(PING, 0.001)
    serve(theirs, 1)
    server = threading.Thread(target=serve, args=(theirs, 1))
    server.start()
    conn._used += 3600  # a connection in use: it is not looked at before each call
    if many:
        assert len(conn.call_many([PING], LIMIT)[0]) == 11  # type: ignore[arg-type]
    else:
        assert len(conn.call(PING, LIMIT)) == 11
    server.join()
    assert conn.in_flight == 0
    conn.end(cs.ClosedError("closed"))


def test_the_end_frees_all_places(pair: Tuple[socket.socket, socket.socket]) -> None:
    conn = _connection.Connection(pair[0], 4)
    with pytest.raises(cs.TimeoutError):
        conn.call(PING, 0.001)
    assert conn.in_flight == 1
    conn.end(cs.ClosedError("closed"))
    assert conn.in_flight == 0


def test_what_is_given_up_before_it_is_written_has_no_place(pair: Tuple[socket.socket, socket.socket]) -> None:
    async def main() -> None:
        pair[0].setblocking(False)
        conn = _aconnection.Connection(asyncio.get_running_loop(), pair[0], 2)
        first, _ = conn.begin(PING, LIMIT, False)
        second, _ = conn.begin(PING, LIMIT, False)
        conn.give_up(first)
        await until(lambda: not conn._flushing)
        assert conn.in_flight == 1
        conn.give_up(second)
        assert conn.in_flight == 1  # it is written
        conn.end(cs.ClosedError("closed"))
        assert conn.in_flight == 0

    asyncio.run(main())


def test_an_answer_in_the_tick_of_a_cancellation_is_heard(pair: Tuple[socket.socket, socket.socket]) -> None:
    """It may be a token, which is to be given back."""
    heard: List[bytes] = []

    async def main() -> None:
        pair[0].setblocking(False)
        conn = _aconnection.Connection(asyncio.get_running_loop(), pair[0], 2)
        task = asyncio.ensure_future(conn.call(PING, LIMIT, heard.append))
        await until(lambda: conn._waiting and not conn._flushing)
        answer = packed(next(iter(conn._waiting)), 0)
        pair[1].sendall(answer)
        task.cancel()
        conn._readable()  # before the task hears of its end
        with pytest.raises(asyncio.CancelledError):
            await task
        assert heard == [answer] and conn.in_flight == 0
        conn.end(cs.ClosedError("closed"))

    asyncio.run(main())
