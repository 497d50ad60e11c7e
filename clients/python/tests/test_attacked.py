"""What an attack on the client has found."""

from __future__ import annotations

import asyncio
import enum
import math
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest
from raw import Sidecar, wait_for

import cachesidecar
from cachesidecar import AsyncClient, BadRequestError, CacheError, Client, EncodingError, _encode
from cachesidecar._connection import Connection
from cachesidecar._reading import Waiter
from cachesidecar.errors import NotSent


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[Sidecar]:
    with_ = Sidecar(tmp_path)
    yield with_
    with_.stop()


def test_threads_that_time_out_together(sidecar: Sidecar) -> None:
    """A waiter that is made the leader as its time ends passes the leading on."""
    with Client(sidecar.path, shared_memory=False) as client:
        client.set("k", "v")
        assert sidecar.process is not None
        process = sidecar.process.pid

        def ask() -> None:
            try:
                client.get("k", timeout=0.03)
            except CacheError:
                pass

        for _ in range(40):
            os.kill(process, signal.SIGSTOP)
            threads = [threading.Thread(target=ask) for _ in range(24)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            os.kill(process, signal.SIGCONT)
            assert client.get("k", timeout=20) == "v"


def test_signal_handlers_that_raise(sidecar: Sidecar) -> None:
    """An exception at any place of a call leaves the client usable."""

    fired = False

    def raises(*_: Any) -> None:
        nonlocal fired
        fired = True
        raise Interrupt

    old = signal.signal(signal.SIGALRM, raises)
    try:
        with Client(sidecar.path, shared_memory=False) as client:
            client.set("k", "v")
            for i in range(1500):
                fired = False
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.0001 + i % 50 * 0.00002)
                    while not fired:  # a library may take the exception for an error of its own
                        _value(client)
                except Interrupt:
                    pass
            signal.setitimer(signal.ITIMER_REAL, 0)
            wait_for(lambda: _value(client) == "v", "the client connects anew")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


class Interrupt(BaseException):
    pass


@pytest.fixture
def conn() -> Iterator[Connection]:
    ours, theirs = socket.socketpair()
    connection = Connection(ours, 16)
    yield connection
    connection.end(cachesidecar.ClosedError("closed"))
    ours.close()
    theirs.close()


class Wait:
    """The lock of a waiter whose wait ends, in the way given, in the moment in which it is made the leader."""

    def __init__(self, conn: Connection, ends: Callable[[], bool]) -> None:
        self._conn, self._ends = conn, ends

    def acquire(self, *_: Any) -> bool:
        self._conn._leave()
        return self._ends()

    def release(self) -> None:
        pass


def _interrupts() -> bool:
    raise Interrupt


@pytest.mark.parametrize("ends", [lambda: False, _interrupts])
def test_a_leader_that_leaves_as_it_is_told(conn: Connection, ends: Callable[[], bool]) -> None:
    waiter, other = Waiter(), Waiter()
    waiter.lock = Wait(conn, ends)  # type: ignore[assignment]
    conn._leading.acquire()
    conn._waiting.update({5: other, 6: waiter})  # the last one is chosen
    with pytest.raises((cachesidecar.TimeoutError, Interrupt)):
        conn._follow(6, waiter, time.monotonic(), None)
    assert waiter.leads and other.leads and other.lock.acquire(False)  # the next one leads


@pytest.mark.parametrize("many", [False, True])
def test_an_interrupted_call_ends_the_connection(
    conn: Connection, many: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exception comes where a lock is held and nothing would release it."""

    def interrupted(*_: Any) -> Any:
        raise Interrupt

    monkeypatch.setattr(conn, "_lead", interrupted)
    monkeypatch.setattr(conn, "_finish", interrupted)
    with pytest.raises(Interrupt):
        if many:
            conn._leading.acquire()
            conn.call_many([(1, b"\x01"), (1, b"\x01")], 1)
        else:
            conn.call((1, b"\x01"), 1)
    with pytest.raises(NotSent):
        conn.call((1, b"\x01"), 60)


def test_an_end_tells_all_waiters(conn: Connection) -> None:
    told, other = Waiter(), Waiter()
    told.leads = True
    told.lock.release()
    conn._waiting.update({5: told, 6: other})
    conn.end(NotSent("the end"))
    assert other.lock.acquire(False)


def _value(client: Client) -> Any:
    try:
        return client.get("k")
    except CacheError:  # it connects anew
        return None


def test_a_writer_reads_while_it_waits_for_room() -> None:
    """Both directions are full: the thread that writes takes answers, its own among them."""
    ours, theirs = socket.socketpair()
    conn = Connection(ours, 16)
    asked = bytes(4 << 20)
    answered: List[bytes] = []

    def serve() -> None:
        with theirs.makefile("rwb") as f:
            head = f.read(10)  # length, the array's head, the id
            f.write(b"\x00\x40\x00\x00" + b"\x92\xce" + head[6:10] + bytes((4 << 20) - 6))
            f.flush()  # blocks until the client reads, and nothing else of the request is read before
            rest = int.from_bytes(head[:4], "big") - 6
            while rest:
                rest -= len(f.read(min(rest, 1 << 16)))

    server = threading.Thread(target=serve)
    server.start()
    answered.append(conn.call((1, asked), 20))
    server.join()
    assert len(answered[0]) == 4 + (4 << 20)
    conn.end(cachesidecar.ClosedError("closed"))
    theirs.close()


def test_large_values_in_both_directions(sidecar: Sidecar) -> None:
    """A thread that waits for room reads, also if it is made the leader meanwhile."""
    large = os.urandom(7 << 20)
    done: List[int] = []

    def run(i: int) -> None:
        for _ in range(4):
            client.set(f"large{i}", large)
            assert client.get(f"large{i}") in (large, None)  # evicted
            done.append(i)

    with Client(sidecar.path, shared_memory=False, timeout=20) as client:
        threads = [threading.Thread(target=run, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(done) == 24


def test_a_loader_that_ends_with_a_cancellation_of_its_own(sidecar: Sidecar) -> None:
    calls = 0

    async def loader() -> str:
        nonlocal calls
        calls += 1
        raise asyncio.CancelledError

    async def run() -> None:
        async with AsyncClient(sidecar.path) as client:
            with pytest.raises(asyncio.CancelledError):
                await client.get_or_set("k", loader)
            assert await client.get_or_set("k", lambda: _returns("v")) == "v"

    asyncio.run(asyncio.wait_for(run(), 20))
    assert calls == 1


async def _returns(value: str) -> str:
    return value


def test_a_length_that_lies() -> None:
    began = time.process_time()
    with pytest.raises(EncodingError):
        _encode.decode(b"k", bytes.fromhex("dd7fffffff"), 32)
    assert time.process_time() - began < 1
    text = "x" * (101 << 20)
    assert _encode.decode(b"k", *_encode.encode([text])) == [text]


@pytest.mark.parametrize("timeout", [-1, -0.05, 0, math.nan, math.inf, 3601, "x"])
def test_timeouts(sidecar: Sidecar, timeout: Any) -> None:
    async def run() -> None:
        async with AsyncClient(sidecar.path) as client:
            with pytest.raises(BadRequestError, match="timeout is"):
                await client.get("k", timeout=timeout)

    with Client(sidecar.path) as client:
        with pytest.raises(BadRequestError, match="timeout is"):
            client.get("k", timeout=timeout)
        with pytest.raises(BadRequestError, match="timeout is"):
            client.delete("k", timeout=timeout)
        with pytest.raises(BadRequestError, match="timeout is"):
            client.set_many({"k": "v"}, timeout=timeout)
    asyncio.run(run())


def test_a_hook_that_raises(sidecar: Sidecar) -> None:
    def hook(*_: Any) -> None:
        raise ZeroDivisionError

    with Client(sidecar.path, on_call=hook) as client:
        for _ in range(3):
            client.set("k", "v")
        assert client.get("k") == "v"
        assert not any(client._memory._writes)


def test_watch_after_a_fork(sidecar: Sidecar) -> None:
    """A child that drops an inherited watch does not end the parent's."""
    with Client(sidecar.path) as client:
        events = client.watch(beat=0.05)
        assert next(events).kind == "reset"
        pid = os.fork()
        if pid == 0:
            events.close()  # type: ignore[attr-defined]
            os._exit(0)
        os.waitpid(pid, 0)
        assert "reset" not in [next(events).kind for _ in range(3)]


def test_text_of_an_enum(sidecar: Sidecar) -> None:
    class Colour(str, enum.Enum):
        RED = "red"

    with Client(sidecar.path) as client:
        client.set(Colour.RED, "a key")  # in other languages too
        assert client.get("red") == "a key"
        with pytest.raises(TypeError, match="the value is of type .*Colour"):
            client.set("red", Colour.RED)
