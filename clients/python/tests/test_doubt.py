"""After a call without an answer others are sent only once the sidecar has answered a PING."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any, Callable, List

import pytest

import cachesidecar as cs
from cachesidecar import AsyncClient, Client, _connection, _doubt
from cachesidecar._wire import ABANDON, FILL, GET, LEASE, PING, SET
from playing import wait_for
from raw import LIMIT
from scripted import Peer, Server

SILENT = r"has not answered for [0-9.]+ s: .*restart it"


class Hanging:
    """A sidecar that notes what comes, and answers it only once it goes on."""

    def __init__(self, hangs: Callable[[List[Any]], bool] = lambda request: True) -> None:
        self.ops: List[int] = []
        self._hangs = hangs
        self._unanswered: List[Any] = []
        self._lock = threading.Lock()

    def __call__(self, peer: Peer, n: int) -> None:
        while True:
            request = peer.next()
            if not request:
                return
            with self._lock:
                self.ops.append(request[1])
                if self._hangs(request):
                    self._unanswered.append((peer, request))
                else:
                    self._answer(peer, request)

    def goes_on(self) -> None:
        with self._lock:
            self._hangs = lambda request: False
            for peer, request in self._unanswered:
                self._answer(peer, request)

    @staticmethod
    def _answer(peer: Peer, request: List[Any]) -> None:
        if request[1] == GET:
            peer.answer(request[0], 0, request[4], 0, 5, 0, 2, 0)
        elif request[1] == LEASE:
            peer.answer(request[0], 1, 1)
        else:
            peer.answer(request[0], 0, 5)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_doubt, "HESITATION", 0.02)


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_while_the_sidecar_hangs_calls_fail_and_are_not_sent(hasty: None) -> None:
    hanging = Hanging()
    with Server(hanging) as server, Client(server.path, shared_memory=False) as client:
        client._link.get(LIMIT)
        with pytest.raises(cs.TimeoutError):
            client.get("a", timeout=0.01)
        calls: List[Callable[[], Any]] = [
            lambda: client.get("b"), lambda: client.set("b", 1), lambda: client.set_many({"b": 1, "c": 2}),
        ]
        for call in 20 * calls:
            with pytest.raises(cs.ConnectionError, match=SILENT):
                call()
        assert client.get_or_set("b", lambda: "loaded") == "loaded"
        wait_for(lambda: hanging.ops == [GET, PING])
        hanging.goes_on()
        wait_for(lambda: value(client) == b"c")
        assert hanging.ops == [GET, PING, GET] and server.n == 1


def value(client: Client) -> Any:
    try:
        return client.get("c")
    except cs.ConnectionError:
        return None


def test_while_the_sidecar_hangs_calls_of_tasks_fail_and_are_not_sent(hasty: None) -> None:
    hanging = Hanging()

    async def main(path: str) -> None:
        async with AsyncClient(path, shared_memory=False) as client:
            await client._link.get(LIMIT)
            client._state.bind(asyncio.get_running_loop())
            with pytest.raises(cs.TimeoutError):
                await client.get("a", timeout=0.01)
            for _ in range(20):
                with pytest.raises(cs.ConnectionError, match=SILENT):
                    await client.get("b")
                with pytest.raises(cs.ConnectionError, match=SILENT):
                    await client.set("b", 1)
                with pytest.raises(cs.ConnectionError, match=SILENT):
                    await client.set_many({"b": 1, "c": 2})
            assert await client.get_or_set("b", lambda: "loaded") == "loaded"
            await until(lambda: hanging.ops == [GET, PING])
            hanging.goes_on()
            conn = client._link.live
            await until(lambda: conn is not None and conn.asked is None)
            assert await client.get("c") == b"c"
            assert hanging.ops == [GET, PING, GET]

    with Server(hanging) as server:
        asyncio.run(asyncio.wait_for(main(server.path), LIMIT))
        assert server.n == 1


def test_calls_that_wait_in_a_doubt_are_sent_once_the_sidecar_goes_on() -> None:
    hanging = Hanging()
    got: List[Any] = []
    with Server(hanging) as server, Client(server.path, shared_memory=False) as client:
        client._link.get(LIMIT)
        with pytest.raises(cs.TimeoutError):
            client.get("a", timeout=0.01)
        threads = [threading.Thread(target=lambda: got.append(client.get("b"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        wait_for(lambda: hanging.ops == [GET, PING])
        hanging.goes_on()
        for thread in threads:
            thread.join(LIMIT)
        assert got == 8 * [b"b"] and server.n == 1


def test_tasks_that_wait_in_a_doubt_go_on_with_the_sidecar_and_may_be_cancelled() -> None:
    hanging = Hanging()

    async def main(path: str) -> None:
        async with AsyncClient(path, shared_memory=False) as client:
            await client._link.get(LIMIT)
            client._state.bind(asyncio.get_running_loop())
            with pytest.raises(cs.TimeoutError):
                await client.get("a", timeout=0.01)
            tasks = [asyncio.ensure_future(client.get("b")) for _ in range(8)]
            cancelled = asyncio.ensure_future(client.get("b"))
            await until(lambda: hanging.ops == [GET, PING])
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            hanging.goes_on()
            assert await asyncio.gather(*tasks) == 8 * [b"b"]

    with Server(hanging) as server:
        asyncio.run(asyncio.wait_for(main(server.path), LIMIT))
        assert server.n == 1


class EndsInDoubt:
    """Its first connection ends where a PING is to be answered."""

    def __init__(self) -> None:
        self.ops: List[int] = []

    def __call__(self, peer: Peer, n: int) -> None:
        if n == 0:
            self.ops += [peer.next()[1], peer.next()[1]]
        else:
            Hanging(lambda request: False)(peer, n)


def test_calls_that_wait_in_a_doubt_go_over_the_next_connection_if_this_one_ends() -> None:
    ends = EndsInDoubt()
    with Server(ends) as server, Client(server.path, shared_memory=False) as client:
        client._link.get(LIMIT)
        with pytest.raises(cs.TimeoutError):
            client.get("a", timeout=0.01)
        assert client.get("b") == b"b"
        assert ends.ops == [GET, PING] and server.n == 2


def test_tasks_that_wait_in_a_doubt_go_over_the_next_connection_if_this_one_ends() -> None:
    async def main(path: str) -> None:
        async with AsyncClient(path, shared_memory=False) as client:
            await client._link.get(LIMIT)
            client._state.bind(asyncio.get_running_loop())
            with pytest.raises(cs.TimeoutError):
                await client.get("a", timeout=0.01)
            assert await client.get("b") == b"b"

    ends = EndsInDoubt()
    with Server(ends) as server:
        asyncio.run(asyncio.wait_for(main(server.path), LIMIT))
        assert ends.ops == [GET, PING] and server.n == 2


def slow(request: List[Any]) -> bool:
    """Report whether a request is one that waits for the origin."""
    return len(request) > 4 and request[4] == b"slow"


def test_a_slow_call_leaves_others_alone_while_the_sidecar_answers_pings() -> None:
    hanging = Hanging(slow)
    with Server(hanging) as server, Client(server.path, shared_memory=False) as client:
        client._link.get(LIMIT)
        for _ in range(3):
            with pytest.raises(cs.TimeoutError):
                client.get("slow", timeout=0.05)
            assert client.get("b") == b"b" and client.set("c", 1) == 5
        assert hanging.ops == 3 * [GET, PING, GET, SET] and server.n == 1


def test_a_slow_call_leaves_tasks_alone_while_the_sidecar_answers_pings() -> None:
    hanging = Hanging(slow)

    async def main(path: str) -> None:
        async with AsyncClient(path, shared_memory=False) as client:
            await client._link.get(LIMIT)
            client._state.bind(asyncio.get_running_loop())
            for _ in range(3):
                with pytest.raises(cs.TimeoutError):
                    await client.get("slow", timeout=0.05)
                assert await client.get("b") == b"b" and await client.set("c", 1) == 5
            with pytest.raises(asyncio.TimeoutError):  # it cancels the call, which is no reason to ask
                await asyncio.wait_for(client.get("slow"), 0.05)
            assert await client.get("b") == b"b"

    with Server(hanging) as server:
        asyncio.run(asyncio.wait_for(main(server.path), LIMIT))
        assert hanging.ops == 3 * [GET, PING, GET, SET] + [GET, GET] and server.n == 1


def test_calls_that_time_out_together_post_one_ping(hasty: None) -> None:
    hanging = Hanging()
    kinds: List[str] = []
    with Server(hanging) as server, Client(server.path, shared_memory=False) as client:
        client._link.get(LIMIT)

        def ask() -> None:
            for _ in range(5):
                try:
                    client.set("a", 1, timeout=0.05)
                except cs.CacheError as e:
                    kinds.append(e.kind)

        threads = [threading.Thread(target=ask) for _ in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_for(lambda: PING in hanging.ops)
        hanging.goes_on()
        wait_for(lambda: value(client) == b"c")
        assert len(kinds) == 5 * 24 and set(kinds) == {"timeout", "unavailable"}
        assert hanging.ops.count(PING) == 1 and server.n == 1


def test_tasks_that_time_out_together_post_one_ping(hasty: None) -> None:
    hanging = Hanging()

    async def main(path: str) -> None:
        async with AsyncClient(path, shared_memory=False) as client:
            await client._link.get(LIMIT)
            client._state.bind(asyncio.get_running_loop())
            for kind in (cs.TimeoutError, cs.ConnectionError):
                tasks = [client.set("a", 1, timeout=0.05) for _ in range(24)]
                assert {type(e) for e in await asyncio.gather(*tasks, return_exceptions=True)} == {kind}
            await until(lambda: PING in hanging.ops)
            assert hanging.ops == 24 * [SET] + [PING]

    with Server(hanging) as server:
        asyncio.run(asyncio.wait_for(main(server.path), LIMIT))


def test_a_ping_that_found_no_room_is_sent_later(hasty: None) -> None:
    """No call is written in a doubt, so the calls that fail write what is posted."""
    ours, theirs = socket.socketpair()
    conn = _connection.Connection(ours, 16)
    filled = 0
    while True:
        try:
            filled += ours.send(bytes(100_000), socket.MSG_DONTWAIT)
        except BlockingIOError:
            break
    conn._ask(0.0)
    while filled:
        filled -= len(theirs.recv(min(filled, 1 << 20)))
    with pytest.raises(cs.ConnectionError, match=SILENT):
        conn.call((2, b""), LIMIT)
    peer = Peer(theirs)
    assert peer.next()[1] == PING
    peer.answer(2, 0)
    conn._look()
    assert not conn.asked
    conn.end(cs.ClosedError("the end"))
    theirs.close()


def test_a_loader_with_a_token_ends_while_the_sidecar_hangs(hasty: None) -> None:
    """Its value is returned, and not kept."""
    fills: List[Any] = []
    hangs = threading.Event()

    def serve(peer: Peer, n: int) -> None:
        while True:
            request = peer.next()
            if not request:
                return
            if request[1] == FILL:
                fills.append(request[-1])
            if not hangs.is_set():
                status = {GET: (1, 0), LEASE: (2, b"token", 5000)}.get(request[1], (0,))
                peer.answer(request[0], *status)

    with Server(serve) as server, Client(server.path, shared_memory=False) as client:

        def load() -> str:
            hangs.set()
            with pytest.raises(cs.TimeoutError):
                client.get("other", timeout=0.01)
            return "loaded"

        assert client.get_or_set("k", load) == "loaded"
        wait_for(lambda: fills == [ABANDON])
        assert server.n == 1
