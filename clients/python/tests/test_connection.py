"""Servers and moments that are not as they should be."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import threading
import time
import warnings
from typing import Any, Callable, List, Optional

import pytest

import cachesidecar as cs
from cachesidecar import AsyncClient, Client, _wire
from cachesidecar._connection import Connection
from playing import wait_for
from scripted import Peer, Server, packed

VALUE = (0, b"v", 0, 5, 0, 2, 0)


def echo(peer: Peer, n: int) -> None:
    """Answer every GET with its key."""
    while True:
        request = peer.request()
        if not request:
            return
        peer.answer(request[0], 0, request[4], 0, 5, 0, 2, 0)


def sync_get(path: str, **settings: Any) -> Any:
    with Client(path, shared_memory=False, **settings) as client:
        return client.get("k")


def async_get(path: str, **settings: Any) -> Any:
    async def run() -> Any:
        async with AsyncClient(path, shared_memory=False, **settings) as client:
            return await client.get("k")

    return asyncio.run(run())


BOTH = pytest.mark.parametrize("get", [sync_get, async_get], ids=["sync", "async"])


@BOTH
@pytest.mark.parametrize("garbage", [b"\xff\xff\xff\xff", b"\0\0\0\1\xc1", b"\0\0\0\0", b"HTTP/1.1 400 Bad Request\r\n"])
def test_garbage(get: Callable[..., Any], garbage: bytes) -> None:
    def serve(peer: Peer, n: int) -> None:
        peer.request()
        peer.send(garbage)
        assert peer.request() == []  # the client ends the connection

    with Server(serve) as server, pytest.raises(cs.InternalError):
        get(server.path)


@BOTH
def test_half_an_answer_and_the_end(get: Callable[..., Any]) -> None:
    """A read is repeated once, over a new connection."""
    def serve(peer: Peer, n: int) -> None:
        request = peer.request()
        answer = packed(request[0], *VALUE)
        peer.send(answer if n else answer[:-3])

    with Server(serve) as server:
        assert get(server.path) == b"v" and server.n == 2


@BOTH
def test_other_ids_then_never(get: Callable[..., Any]) -> None:
    def serve(peer: Peer, n: int) -> None:
        request = peer.request()
        peer.answer(request[0] + 1, *VALUE)
        peer.answer(3, *VALUE)
        peer.request()

    with Server(serve) as server:
        with pytest.raises(TimeoutError) as e:
            get(server.path, timeout=1)  # which includes connecting
        assert isinstance(e.value, cs.TimeoutError)


@BOTH
def test_no_socket(get: Callable[..., Any], tmp_path: Any) -> None:
    with pytest.raises(ConnectionError):
        get(str(tmp_path / "none"))


def test_a_call_given_up_leaves_the_connection_usable() -> None:
    """Its late answer is dropped, also if the first half of it has been read."""
    go = threading.Event()

    def serve(peer: Peer, n: int) -> None:
        first = packed(peer.request()[0], 0, b"x" * 100, 0, 5, 0, 2, 0)
        peer.send(first[:40])
        go.wait(20)
        peer.send(first[40:])
        echo(peer, n)

    with Server(serve) as server, Client(server.path) as client:
        client._link.get(20)  # a call's time includes that
        with pytest.raises(cs.TimeoutError):
            client.get("a", timeout=0.05)
        go.set()
        assert client.get("b") == b"b" and server.n == 1


def test_the_socket_vanishes_and_comes_back() -> None:
    with Server(echo) as server:
        client = Client(server.path, connect_timeout=1)
        assert client.get("a") == b"a"
        path = server.path
    with pytest.raises(cs.ConnectionError):
        client.set("a", 1)
    began = time.monotonic()
    for _ in range(50):
        with pytest.raises(cs.ConnectionError):
            client.get("a")
    assert time.monotonic() - began < 5  # they fail fast
    client.close()
    with pytest.raises(cs.ClosedError):
        client.get("a")
    assert not os.path.exists(path)


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_bad_arguments(client: Any) -> None:
    for settings in (
        {"timeout": 0}, {"timeout": -1}, {"max_in_flight": 0}, {"near_cache": 5}, {"token": "a", "token_file": "b"},
    ):
        with pytest.raises(cs.BadRequestError):
            client("/nowhere", **settings)
    made = Client("/nowhere")
    for key, error in [
        ("", cs.BadRequestError), (b"x" * 1025, cs.BadRequestError), ("\udc80", cs.BadRequestError), (5, TypeError),
    ]:
        with pytest.raises(error):
            made.get(key)  # type: ignore[arg-type]
    for ttl in (0, -1, 31536001, float("nan")):
        with pytest.raises(cs.BadRequestError):
            made.set("k", 1, ttl=ttl)
    for value, error in [(2**63, cs.TooLargeError), (object(), TypeError), ([2**64], cs.TooLargeError), ({1}, TypeError)]:
        with pytest.raises(error):
            made.set("k", value)


def test_a_value_above_the_limit_is_not_sent() -> None:
    with Server(echo) as server, Client(server.path) as client:
        client.get("a")
        with pytest.raises(cs.TooLargeError, match="1001 bytes"):
            client.set("k", b"x" * 1001)
        assert client.get("a") == b"a"


def test_an_interrupt_ends_the_connection() -> None:
    """A KeyboardInterrupt within a read must not leave the next answer to the wrong call."""
    began = threading.Event()

    def serve(peer: Peer, n: int) -> None:
        if n == 0:
            peer.request()
            began.set()
            peer.request()
        else:
            echo(peer, n)

    def interrupt() -> None:
        began.wait(20)
        os.kill(os.getpid(), signal.SIGINT)

    with Server(serve) as server, Client(server.path, timeout=20) as client:
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            client.get("a")
        thread.join()
        assert client.get("b") == b"b" and server.n == 2


def test_threads_share_one_connection() -> None:
    """Answers come in another order, and each thread gets its own."""
    def serve(peer: Peer, n: int) -> None:
        held: List[Any] = []
        while True:
            request = peer.request()
            if not request:
                return
            held.append(request)
            if len(held) >= 4 or b"last" in request[4]:
                for one in reversed(held):
                    peer.answer(one[0], 0, one[4], 0, 5, 0, 2, 0)
                held = []

    wrong: List[Any] = []
    with Server(serve) as server, Client(server.path, timeout=20) as client:
        def run(t: int) -> None:
            for i in range(300):
                key = b"%d-%d" % (t, i)
                if client.get(key) != key:
                    wrong.append(key)

        threads = [threading.Thread(target=run, args=(t,)) for t in range(8)]
        for thread in threads:
            thread.start()
        wait_for(lambda: sum(t.is_alive() for t in threads) < 4)
        while any(t.is_alive() for t in threads):
            assert client.get(b"last") == b"last"
        assert not wrong and server.n == 1


def test_threads_give_up_and_others_go_on() -> None:
    def serve(peer: Peer, n: int) -> None:
        while True:
            request = peer.request()
            if not request:
                return
            if b"never" not in request[4]:
                peer.answer(request[0], 0, request[4], 0, 5, 0, 2, 0)

    failed: List[Any] = []
    with Server(serve) as server, Client(server.path, timeout=20) as client:
        def run(t: int) -> None:
            for i in range(40):
                try:
                    if t % 2:
                        client.get(b"never", timeout=0.002)
                        failed.append("an answer")
                    elif client.get(b"%d-%d" % (t, i)) != b"%d-%d" % (t, i):
                        failed.append(t)
                except (cs.TimeoutError, cs.ConnectionError):  # the latter one if its time ends in a doubt
                    if not t % 2:
                        failed.append("a timeout")

        assert client.get(b"first") == b"first"  # no call waits for the connection
        threads = [threading.Thread(target=run, args=(t,)) for t in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert not failed and server.n == 1 and not any(t.is_alive() for t in threads)


def in_child(run: Callable[[], Optional[str]]) -> None:
    """Fork, and fail unless run returns nothing in the child."""
    there, here = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(15)
            told = run() or ""
        except BaseException as e:
            told = repr(e)
        os.write(here, told.encode() or b"ok")
        os._exit(0)
    os.close(here)
    with os.fdopen(there, "rb") as f:
        told = f.read().decode()
    os.waitpid(pid, 0)
    assert told == "ok", told or "the child has hung"


def test_fork_within_a_call_of_another_thread() -> None:
    """The child has a connection of its own; the parent's call gets its answer."""
    go = threading.Event()

    def serve(peer: Peer, n: int) -> None:
        while True:
            request = peer.request()
            if not request:
                return
            if request[4] == b"slow":
                go.wait(20)
            peer.answer(request[0], 0, request[4], 0, 5, 0, 2, 0)

    with Server(serve) as server, Client(server.path, timeout=20) as client:
        got: List[Any] = []
        thread = threading.Thread(target=lambda: got.append(client.get("slow")))
        thread.start()
        wait_for(lambda: client._link.live is not None and client._link.live.in_flight)
        conn = client._link.live
        assert conn is not None
        fd = conn._sock.fileno()
        held = conn._writing
        with held:  # as if another thread were writing
            def child() -> Optional[str]:
                if client.get("c") != b"c":
                    return "a wrong answer"
                try:
                    os.fstat(fd)
                except OSError:
                    return None
                return None if client._link.live and client._link.live._sock.fileno() == fd else "the descriptor is open"

            in_child(child)
        go.set()
        thread.join(20)
        assert got == [b"slow"] and client.get("d") == b"d" and server.n == 2


def test_async_fork() -> None:
    async def main(path: str) -> None:
        async with AsyncClient(path) as client:
            assert await client.get("a") == b"a"

            def child() -> Optional[str]:
                asyncio.events._set_running_loop(None)
                return None if asyncio.run(client.get("c")) == b"c" else "a wrong answer"

            in_child(child)
            assert await client.get("b") == b"b"

    with Server(echo) as server:
        asyncio.run(main(server.path))
        assert server.n == 2


def test_an_event_loop_closed_within_a_call() -> None:
    """Nothing hangs or leaks, and the client works in the next loop."""
    def serve(peer: Peer, n: int) -> None:
        if n == 0:
            while peer.request():
                pass
        echo(peer, n)

    with Server(serve) as server, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = AsyncClient(server.path, timeout=20)
        loop = asyncio.new_event_loop()
        task = loop.create_task(client.get("a"))

        async def connected() -> None:
            while client._link.live is None:
                await asyncio.sleep(0.001)

        loop.run_until_complete(asyncio.wait_for(connected(), 20))
        sock = client._link.live._sock if client._link.live else None
        assert sock is not None
        loop.close()
        del task
        gc.collect()

        async def again() -> Any:
            value = await client.get("b")
            await client.close()
            return value

        assert asyncio.run(again()) == b"b" and sock.fileno() == -1


def test_another_event_loop_is_refused() -> None:
    async def main(path: str) -> None:
        async with AsyncClient(path) as client:
            await client.get("a")
            got: List[Any] = []

            def other() -> None:
                try:
                    asyncio.run(client.get("b"))
                except RuntimeError as e:
                    got.append(str(e))

            thread = threading.Thread(target=other)
            thread.start()
            await asyncio.get_running_loop().run_in_executor(None, thread.join)
            assert "one client for each loop" in got[0] and await client.get("c") == b"c"

    with Server(echo) as server:
        asyncio.run(main(server.path))


def test_cancelling_leaves_the_others() -> None:
    async def main(path: str) -> None:
        async with AsyncClient(path) as client:
            await client.get("first")
            tasks = [asyncio.create_task(client.get(b"%d" % i)) for i in range(64)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(r, asyncio.CancelledError) for r in results[::2])
            assert results[1::2] == [b"%d" % i for i in range(1, 64, 2)]

    with Server(echo) as server:
        asyncio.run(main(server.path))


def test_calls_of_one_tick_share_a_write() -> None:
    sizes: List[int] = []

    def serve(peer: Peer, n: int) -> None:
        data = peer.sock.recv(1 << 16)
        sizes.append(data.count(b"key"))
        for at in range(32):
            peer.answer((1 << 16) + at, *VALUE)
        peer.request()

    async def main(path: str) -> None:
        async with AsyncClient(path) as client:
            await client._link.get(1)
            client._state.loop = asyncio.get_running_loop()
            assert await asyncio.gather(*[client.get(f"key{i}") for i in range(32)]) == [b"v"] * 32

    with Server(serve) as server:
        asyncio.run(main(server.path))
    assert sizes == [32]


def test_a_cancelled_lease_gives_its_token_back() -> None:
    given: List[Any] = []
    go = threading.Event()

    def serve(peer: Peer, n: int) -> None:
        while True:
            request = peer.request()
            if not request:
                return
            if request[1] == 3:
                peer.answer(request[0], 1, 0)
            elif request[1] == 9:
                go.wait(20)
                peer.answer(request[0], 2, b"token", 5000)
            else:
                given.append(request)
                peer.answer(request[0], 0, 0)

    async def main(path: str) -> None:
        async with AsyncClient(path, timeout=20) as client:
            task = asyncio.create_task(client.get_or_set("k", lambda: 1))
            while not (client._link.live and client._link.live.in_flight and len(client._state.loads)):
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            go.set()
            while not given:
                await asyncio.sleep(0.001)

    with Server(serve) as server:
        asyncio.run(main(server.path))
    assert given[0][5] == b"token" and given[0][9] == 256


def test_no_descriptor_and_no_thread_stays() -> None:
    with Server(echo) as server:
        sync_get(server.path)
        async_get(server.path)
        before, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
        for _ in range(20):
            sync_get(server.path, near_cache=1 << 20)
            async_get(server.path, near_cache=1 << 20)
            Client(server.path, near_cache=1 << 20).get("a")  # dropped, not closed
        gc.collect()
        wait_for(lambda: len(os.listdir("/proc/self/fd")) <= before + 4, "the end of the descriptors")
        wait_for(lambda: threading.active_count() <= threads + 2 * len(server.peers), "the end of the threads")
        assert not [t for t in threading.enumerate() if t.name.startswith("cachesidecar")]


def test_the_wall_clock_is_never_read() -> None:
    """A jump of it cannot change what is fresh."""
    import cachesidecar

    folder = os.path.dirname(cachesidecar.__file__)
    for name in os.listdir(folder):
        if name.endswith(".py"):
            with open(os.path.join(folder, name), encoding="utf-8") as f:
                text = f.read()
            for reading in ("time.time(", "time_ns()", "datetime.now", "utcnow"):
                assert reading not in text.replace("clock_gettime_ns()", ""), f"{name} reads the wall clock"


assert socket and Any


def pair() -> "tuple[Connection, socket.socket]":
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    return Connection(ours, 16), theirs


def test_what_is_posted_while_another_thread_writes_is_sent() -> None:
    conn, theirs = pair()
    conn._writing.acquire()
    conn.post(_wire.tail(2, 0))
    conn.post(_wire.tail(2, 0))
    conn._unlock_writing()
    both = theirs.recv(1 << 16)
    length = 4 + int.from_bytes(both[:4], "big")
    assert len(both) == 2 * length and both[:6] == both[length : length + 6]


def test_what_is_posted_just_before_the_other_thread_has_written_is_sent() -> None:
    conn, theirs = pair()

    class Late:
        """Something is posted before it is released."""

        lock = conn._writing

        def acquire(self, wait: bool) -> bool:
            return self.lock.acquire(wait)

        def release(self) -> None:
            posted.append(1)
            if len(posted) == 1:
                conn.post(_wire.tail(2, 0))
            self.lock.release()

    posted: List[int] = []
    conn._writing = Late()  # type: ignore[assignment]
    conn._writing.acquire(True)
    conn._unlock_writing()
    assert theirs.recv(1 << 16)


def test_what_is_posted_to_a_full_socket_is_sent_by_the_next_to_write() -> None:
    conn, theirs = pair()
    filled = 0
    while True:
        try:
            filled += conn._sock.send(bytes(100_000), socket.MSG_DONTWAIT)
        except BlockingIOError:
            break
    conn.post(_wire.tail(2, 0))
    while filled:
        filled -= len(theirs.recv(min(filled, 1 << 20)))
    conn.post(_wire.tail(3, 0))
    told = theirs.recv(1 << 16)
    length = 4 + int.from_bytes(told[:4], "big")
    assert len(told) == 2 * length and told[:length] != told[length:]


def test_a_socket_is_closed_if_its_leader_leaves_while_another_thread_looks() -> None:
    conn, _ = pair()

    class Leaves:
        """Held when the other thread tries it, and free just after."""

        tried = 0

        def acquire(self, wait: bool) -> bool:
            self.tried += 1
            return self.tried > 1

        def locked(self) -> bool:
            return False

        def release(self) -> None:
            pass

    conn._leading = Leaves()  # type: ignore[assignment]
    conn.end(cs.ClosedError("the end"))
    assert conn._sock.fileno() == -1


def test_a_client_that_is_closed_while_it_connects_leaves_no_connection() -> None:
    ended = threading.Event()

    def serve(peer: Peer, n: int) -> None:
        assert peer.request() == []
        ended.set()

    with Server(serve) as server:
        client = Client(server.path, shared_memory=False)
        dial = client._link._dial

        def closed_meanwhile(deadline: float) -> Any:
            conn = dial(deadline)
            client.close()
            return conn

        client._link._dial = closed_meanwhile  # type: ignore[assignment]
        with pytest.raises(cs.ClosedError):
            client.get("k")
        assert ended.wait(5) and client._link.live is None
