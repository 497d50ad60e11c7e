"""Clocks that a test has stopped, as freezegun and time-machine do. A call still ends by its time."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import sys
import time
import types
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest

import cachesidecar as cs
from cachesidecar import AsyncClient, Client, _doubt, _timers, _wire
from scripted import Peer, Server

NAMES = ("time", "monotonic", "perf_counter", "time_ns", "monotonic_ns", "perf_counter_ns")
NOT_THESE = ("threading", "queue", "multiprocessing", "_pytest.", __name__)
JUST = 0.2  # seconds


@contextlib.contextmanager
def frozen(moment: Optional[float]) -> Iterator[None]:
    """Stop the clocks now, or at a moment, in every module that has them under any name: as freezegun does."""
    fakes: Dict[int, Callable[[], Any]] = {}
    for name in NAMES:
        clock = getattr(time, name)
        now = clock()
        fakes[id(clock)] = functools.partial(type(now), now if moment is None else moment)
    undo: List[Any] = []
    for module in list(sys.modules.values()):
        if not isinstance(module, types.ModuleType) or module.__name__.startswith(NOT_THESE):
            continue
        for name, value in list(vars(module).items()):
            if id(value) in fakes:
                undo.append((module, name, value))
                setattr(module, name, fakes[id(value)])
    try:
        yield
    finally:
        for module, name, value in undo:
            setattr(module, name, value)


@pytest.fixture(params=[None, 0.0, 1_326_499_200.0], ids=["now", "the epoch", "2012"])
def moment(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(autouse=True)
def default_hesitation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_doubt, "HESITATION", 0.1)


def answers(peer: Peer, n: int) -> None:
    """Answers all reads but those of the key hangs, and no PING."""
    while True:
        request = peer.next()
        if not request:
            return
        if request[1] == _wire.GET and request[4] != b"hangs":
            peer.answer(request[0], 0, b"v", 16, 7, 0, 2, 0)


def test_the_clocks_stand_still(moment: Optional[float]) -> None:
    with frozen(moment):
        before = time.monotonic(), time.time()
        for _ in range(1000):
            pass
        assert (time.monotonic(), time.time()) == before


def test_threads(moment: Optional[float]) -> None:
    with Server(answers) as server, Client(server.path, shared_memory=False, timeout=JUST) as client:
        assert client.get("k") == "v"
        with frozen(moment):
            for kind in (cs.TimeoutError, cs.ConnectionError, cs.ConnectionError):  # the PING is not answered
                with pytest.raises(kind):
                    client.get("hangs")
            assert client.get_many(["hangs"], partial=True).errors["hangs"].kind == "unavailable"
        with pytest.raises(cs.ConnectionError):
            client.get("k")


def test_a_client_that_begins_while_the_clock_stands(moment: Optional[float]) -> None:
    with Server(answers) as server, frozen(moment):
        with Client(server.path, shared_memory=False, timeout=JUST) as client:
            assert client.get("k") == "v"
            with pytest.raises(cs.TimeoutError):
                client.get("hangs")


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_nobody_greets(moment: Optional[float], kind: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with frozen(moment), pytest.raises(cs.ConnectionError, match="no HELLO"):
            settings: Any = {"shared_memory": False, "timeout": 10, "connect_timeout": JUST}
            if kind == "sync":
                Client(str(tmp_path / "s"), **settings).get("k")
            else:
                asyncio.run(AsyncClient(str(tmp_path / "s"), **settings).get("k"))


def test_tasks(moment: Optional[float]) -> None:
    async def run(path: str) -> None:
        async with AsyncClient(path, shared_memory=False, timeout=JUST) as client:
            assert await client.get("k") == "v"  # its timer still runs, on the clock that is stopped now
            with frozen(moment):
                for kind in (cs.TimeoutError, cs.ConnectionError, cs.ConnectionError):
                    with pytest.raises(kind):
                        await client.get("hangs")
            with pytest.raises(cs.ConnectionError):
                await client.get("k")

    with Server(answers) as server:
        asyncio.run(run(server.path))


def test_tasks_together_have_each_its_own_time(moment: Optional[float]) -> None:
    async def run(path: str) -> None:
        async with AsyncClient(path, shared_memory=False, timeout=20) as client:
            with frozen(moment):
                assert await client.get("k") == "v"
                late = asyncio.ensure_future(client.get("hangs", timeout=15))
                calls = [client.get("hangs", timeout=time) for time in (JUST, JUST / 4, JUST / 2)]
                failed = await asyncio.gather(*calls, return_exceptions=True)
                assert [type(error) for error in failed] == [cs.TimeoutError] * 3
                assert not late.done()
                late.cancel()

    with Server(answers) as server:
        asyncio.run(run(server.path))


def test_timers_of_a_stopped_clock_end_also_when_it_goes_on(moment: Optional[float]) -> None:
    """What waits between two attempts to follow the sidecar, and what loads."""

    async def run() -> None:
        with frozen(moment):
            sleeps = asyncio.ensure_future(_timers.sleep(JUST))
            loads = asyncio.ensure_future(_timers.within(JUST, asyncio.get_running_loop().create_future()))
            done = asyncio.ensure_future(_timers.within(20, asyncio.sleep(0, "done")))
            await asyncio.sleep(0)
        done_by = time.monotonic() + 20
        while not (sleeps.done() and loads.done()) and time.monotonic() < done_by:
            await asyncio.sleep(0.01)
        assert await done == "done" and sleeps.done() and isinstance(loads.exception(), asyncio.TimeoutError)

    asyncio.run(run())


def test_a_load_ends_by_its_time(moment: Optional[float]) -> None:
    async def run(path: str) -> None:
        async with AsyncClient(path + "none", shared_memory=False, load_timeout=JUST) as client:
            with frozen(moment):
                ended: List[str] = []

                async def load() -> None:
                    try:
                        await asyncio.get_running_loop().create_future()
                    finally:
                        ended.append("cancelled")

                with pytest.raises(cs.TimeoutError, match="load_timeout"):
                    await client.get_or_set("k", load)
                assert ended == ["cancelled"]

    with Server(answers) as server:
        asyncio.run(run(server.path))
