"""What needs a thread, or an event loop that has ended, is left out: the calls work without it."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from typing import Iterator, List

import pytest
from raw import HERE, LIMIT, Sidecar, wait_for

from cachesidecar import AsyncClient, Client, ClosedError, _state


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    one = Sidecar(tmp_path_factory.mktemp("s"))
    yield one
    one.stop()


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Iterator[List[str]]:
    """As at a limit of processes, and while the interpreter ends. It has the names of the threads, until "over"."""
    names: List[str] = []
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if "over" in names:
            return real(thread)
        names.append(thread.name)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr(_state, "_START_AGAIN", 3600.0)
    yield names


def test_no_thread_can_be_started(sidecar: Sidecar, refused: List[str]) -> None:
    """Nothing is kept near, and no shared memory is read. Both come back."""
    with Client(sidecar.path, near_cache=1 << 20) as client:
        client.set("a", 1)
        for _ in range(3):
            assert client.get("a") == 1 and client.get_many(["a"]) == {"a": 1}
            assert client.get_or_set("b", lambda: 2) == 2 and client.delete("b")
        events = client.watch(["a"])
        assert next(events).kind == "reset"
        del events
        assert refused.count("cachesidecar-near") == 1  # it is tried again now and then, not with each call
        assert set(refused) == {"cachesidecar-near", "cachesidecar-attach"}
        assert not client.near_stats().following and client._memory.region is None
        refused.append("over")
        client._state._start_at = 0.0
        wait_for(lambda: client.get("a") == 1 and client.near_stats().following, "the near cache")
        assert client._link.live is not None
        client._link.live.end(ClosedError("for a new HELLO"))
        client.set("a", 2)
        wait_for(lambda: client._memory.region, "the shared memory")
    assert not [t for t in threading.enumerate() if t.name.startswith("cachesidecar")]


def test_no_thread_for_asyncio(sidecar: Sidecar, refused: List[str]) -> None:
    async def calls() -> None:
        async with AsyncClient(sidecar.path, near_cache=1 << 20) as client:
            await client.set("a", 1)
            assert await client.get("a") == 1
            assert client._memory.region is None

    asyncio.run(calls())
    assert set(refused) == {"cachesidecar-attach"}


ATEXIT = """
import asyncio, atexit, os, sys
from cachesidecar import AsyncClient, Client

def end(name):
    async def calls():
        async with AsyncClient(sys.argv[1], near_cache=1 << 20) as own:
            await own.set(name, name)
            return await own.get(name), await asleep.get(name)
    told = []
    for client in used, new:
        client.set(name, 1)
        told += [client.get(name), client.get_or_set(name + "!", lambda: 2), client.delete(name)]
    print(name, told, asyncio.run(calls()))

atexit.register(end, "before")  # it runs after what is registered later, such as by a client
used, new = (Client(sys.argv[1], near_cache=1 << 20, timeout=20, connect_timeout=20) for _ in range(2))
asleep = AsyncClient(sys.argv[1], near_cache=1 << 20, timeout=20, connect_timeout=20)
used.get("x"), asyncio.run(asleep.get("x"))
atexit.register(end, "after")
"""


def test_functions_of_atexit_call_the_client(sidecar: Sidecar) -> None:
    """From Python 3.12 on no thread can be started there."""
    done = subprocess.run(
        [sys.executable, "-c", ATEXIT, sidecar.path], capture_output=True, text=True, timeout=3 * LIMIT,
        env={**os.environ, "PYTHONPATH": str(HERE.parent / "src")},
    )  # fmt: skip
    told = [1, 2, True] * 2
    assert done.stdout.splitlines() == [f"{name} {told} {(name, name)}" for name in ("after", "before")], done.stderr
    assert not done.stderr


def test_the_loop_of_a_client_was_closed(sidecar: Sidecar) -> None:
    """Also with a task of the client pending: a call begins anew on the next loop, and close ends what is left."""
    client = AsyncClient(sidecar.path, near_cache=1 << 20)

    async def calls() -> None:
        await client.set("a", 1)
        asyncio.ensure_future(client.get_or_set("slow", lambda: asyncio.sleep(3 * LIMIT)))
        await asyncio.sleep(0)
        while not client.near_stats().following:
            await client.get("a")
            await asyncio.sleep(0.01)

    for _ in range(2):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(calls())
        loop.close()
    asyncio.run(client.close())

    async def closed() -> None:
        with pytest.raises(ClosedError):
            await client.get("a")

    asyncio.run(closed())
    gc.collect()  # asyncio logs that tasks were pending
