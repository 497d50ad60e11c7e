"""Tokens that must not be lost, and connections that end while something is sent over them."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import Any, Callable, List

import pytest

import cachesidecar as cs
from cachesidecar import AsyncClient, Client, _wire
from cachesidecar._connection import Connection
from playing import wait_for
from scripted import Peer, Server

GET, LEASE, FILL, LEAVING, ABANDON = 3, 9, 10, 23, 256


def pair() -> Connection:
    ours, theirs = socket.socketpair()
    conn = Connection(ours, 16)
    conn.theirs = theirs  # type: ignore[attr-defined]
    return conn


def ends(conn: Connection) -> None:
    """End a connection as another thread does."""
    thread = threading.Thread(target=conn.end, args=(cs.ClosedError("the end"),))
    thread.start()
    thread.join()


async def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not true():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


def within(seconds: float, do: Callable[[], Any]) -> None:
    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive()


def test_a_connection_that_ends_before_something_is_posted() -> None:
    conn = pair()

    class Posts(List[Any]):
        def append(self, post: Any) -> None:
            if conn.error is None:
                ends(conn)
            super().append(post)

    conn._posts = Posts()
    within(5, lambda: conn.post(_wire.tail(2, 0)))
    assert conn._sock.fileno() == -1 and not conn._posts


def test_a_connection_that_ends_while_something_posted_is_sent() -> None:
    conn = pair()
    next_id = conn._id

    def ended_meanwhile() -> int:
        ends(conn)
        return next_id()

    conn._id = ended_meanwhile  # type: ignore[assignment]
    conn.post(_wire.tail(2, 0))
    assert conn._sock.fileno() == -1 and not conn._writing.locked()


def answer_one(conn: Any, before: Callable[[], None] = lambda: None) -> None:
    request = conn.theirs.recv(100)
    before()
    conn.theirs.sendall(b"\0\0\0\x07\x92\xce" + request[6:10] + b"\0")


def test_a_connection_that_ends_just_after_the_leaders_answer_came() -> None:
    conn: Any = pair()
    read = conn._recv

    def ended_meanwhile(*args: Any) -> bytes:
        data: bytes = read(*args)
        ends(conn)
        return data

    conn._recv = ended_meanwhile
    server = threading.Thread(target=answer_one, args=(conn,))
    server.start()
    conn.call(_wire.tail(2, 0), 5)
    server.join()
    assert conn._sock.fileno() == -1


def test_what_found_no_room_is_sent_once_an_answer_has_come() -> None:
    conn: Any = pair()
    send = conn._send

    def full(*args: Any) -> int:
        raise BlockingIOError

    def posted_to_a_full_socket() -> None:
        conn._send = full
        conn.post(_wire.tail(3, 0))
        conn._send = send

    server = threading.Thread(target=answer_one, args=(conn, posted_to_a_full_socket))
    server.start()
    conn.call(_wire.tail(2, 0), 5)
    server.join()
    conn.theirs.settimeout(5)
    assert conn.theirs.recv(100)


def test_a_report_reads_the_answers_to_earlier_ones() -> None:
    conn: Any = pair()
    conn.theirs.sendall(b"\0\0\0\x07\x92\xce\0\1\0\0\0")
    conn.report(_wire.tail(3, 0))
    with pytest.raises(BlockingIOError):
        conn._sock.recv(1, socket.MSG_DONTWAIT)


def test_an_interrupt_of_a_post_ends_the_connection() -> None:
    conn = pair()

    def interrupted() -> int:
        raise KeyboardInterrupt

    conn._id = interrupted  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        conn.post(_wire.tail(2, 0))
    assert not conn.alive


def test_a_post_that_finds_the_sidecar_gone_ends_the_connection() -> None:
    conn = pair()
    conn.theirs.close()  # type: ignore[attr-defined]
    conn.post(_wire.tail(2, 0))
    assert not conn.alive


def granting(seen: List[Any]) -> Callable[[Peer, int], None]:
    """Return a server that grants each LEASE, and notes the FILLs."""

    def serve(peer: Peer, n: int) -> None:
        while True:
            request = peer.request()
            if not request:
                seen.append("end")
                return
            if request[1] == GET:
                peer.answer(request[0], 1)
            elif request[1] == LEASE:
                peer.answer(request[0], 2, b"token", 10_000)
            elif request[1] == FILL:
                seen.append(request[-1])
                peer.answer(request[0], 0, 1)
            elif request[1] != LEAVING:
                peer.answer(request[0], 0)

    return serve


def test_a_token_whose_fill_could_not_be_written_goes_back() -> None:
    seen: List[Any] = []
    with Server(granting(seen)) as server, Client(server.path, shared_memory=False, timeout=1) as client:
        client.ping()

        def loader() -> bytes:
            conn = client._link.live
            assert conn is not None
            conn._writing.acquire()  # another thread writes something large
            return b"v"

        assert client.get_or_set("k", loader) == b"v"
        assert client._link.live is not None
        client._link.live._unlock_writing()
        wait_for(lambda: seen == [ABANDON])


def test_a_token_whose_fill_could_not_be_written_goes_back_async() -> None:
    seen: List[Any] = []

    async def run(path: str) -> None:
        async with AsyncClient(path, shared_memory=False, timeout=1) as client:
            conn: Any = None

            async def loader() -> bytes:
                nonlocal conn
                conn = client._link.live
                conn._flushing = True  # it waits for room
                return b"v"

            assert await client.get_or_set("k", loader) == b"v"
            conn._flush()
            await until(lambda: seen == [ABANDON])

    with Server(granting(seen)) as server:
        asyncio.run(run(server.path))


def test_a_connection_that_leaves_ends_with_its_last_token() -> None:
    seen: List[Any] = []
    with Server(granting(seen)) as server, Client(server.path, shared_memory=False) as client:

        def loader() -> bytes:
            assert client._link.live is not None
            client._link.live.leaving = True
            return b"v"

        client.get_or_set("k", loader)
        wait_for(lambda: seen[1:] == ["end"])
    seen.clear()

    async def run(path: str) -> None:
        async with AsyncClient(path, shared_memory=False) as client:

            async def loader() -> bytes:
                assert client._link.live is not None
                client._link.live.leaving = True
                return b"v"

            await client.get_or_set("k", loader)
            await until(lambda: seen[1:] == ["end"])

    with Server(granting(seen)) as server:
        asyncio.run(run(server.path))


def test_no_report_over_a_connection_that_leaves() -> None:
    with Server(granting([])) as server, Client(server.path, shared_memory=False) as client:
        client.ping()
        conn = client._link.live
        assert conn is not None
        conn.tokens.add(b"token")
        conn.leaving = True
        posted: List[Any] = []
        conn.post = posted.append  # type: ignore[assignment]
        client._shared_tally().reads += 1
        client._core.report()
        assert not posted


def test_close_while_connecting(tmp_path: Any) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    client = Client(str(tmp_path / "s"), shared_memory=False, connect_timeout=2)
    threading.Timer(0.05, client.close).start()
    with pytest.raises(cs.ClosedError):
        client.get("k")

    async def run() -> None:
        other = AsyncClient(str(tmp_path / "s"), shared_memory=False, connect_timeout=5)
        call = asyncio.ensure_future(other.get("k"))
        while other._link._dialing is None:
            await asyncio.sleep(0)
        await other.close()
        with pytest.raises(cs.ClosedError):
            await call

    began = time.monotonic()
    asyncio.run(run())
    assert time.monotonic() - began < 4
    listener.close()
