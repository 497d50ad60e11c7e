"""Several callers at once, and several clients, at a real sidecar."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path
from time import monotonic
from typing import Any, Iterator, List

import pytest

from cachesidecar import AsyncClient, Client
from raw import LIMIT, Sidecar, wait_for

BOUND = 0.3


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    one = Sidecar(tmp_path_factory.mktemp("s"))
    yield one
    one.stop()


def count_joins(loads: Any, monkeypatch: pytest.MonkeyPatch) -> List[int]:
    """Return a list that grows with each caller that has found no value and joined a flight."""
    join, joined = loads.join, []

    def counted(*args: Any) -> Any:
        flight = join(*args)
        joined.append(1)
        return flight

    monkeypatch.setattr(loads, "join", counted)
    return joined


def test_threads_load_once(sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: List[int] = []
    calls: List[str] = []
    got: List[Any] = []

    def load() -> str:
        loads.append(1)
        wait_for(lambda: len(joined) == 8, "the other threads")
        return "v"

    def ask() -> None:
        got.append(client.get_or_set("threads", load))

    with Client(sidecar.path, on_call=lambda op, *_: calls.append(op)) as client:
        joined = count_joins(client._state.loads, monkeypatch)
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
    assert got == ["v"] * 8 and loads == [1]
    # The one that loads, one that waits for the fill, and one for those who came later.
    assert calls.count("lease") <= 3 and calls.count("fill") == 1


def test_tasks_load_once(sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: List[int] = []
    calls: List[str] = []

    async def main() -> None:
        async with AsyncClient(sidecar.path, on_call=lambda op, *_: calls.append(op)) as client:
            joined = count_joins(client._state.loads, monkeypatch)

            async def load() -> str:
                loads.append(1)
                while len(joined) < 8:
                    await asyncio.sleep(0.001)
                return "v"

            assert await asyncio.gather(*[client.get_or_set("tasks", load) for _ in range(8)]) == ["v"] * 8

    asyncio.run(asyncio.wait_for(main(), LIMIT))
    assert loads == [1]
    assert calls.count("lease") <= 3 and calls.count("fill") == 1


def test_forked_processes_load_once(sidecar: Sidecar, tmp_path: Path) -> None:
    began, loads, got = tmp_path / "began", tmp_path / "loads", tmp_path / "got"

    def note(path: Path, what: str) -> None:
        with path.open("a") as f:
            f.write(what + "\n")

    def lines(path: Path) -> List[str]:
        return path.read_text().splitlines() if path.exists() else []

    def load() -> str:
        note(loads, "load")
        wait_for(lambda: len(lines(began)) == 4, "the other processes")
        return "v"

    with Client(sidecar.path) as client:
        client.ping()  # the children inherit a connection
        there, here = os.pipe()
        children = []
        for _ in range(4):
            pid = os.fork()
            if pid == 0:
                try:
                    signal.alarm(int(LIMIT))
                    os.close(here)
                    os.read(there, 1)  # returns in all of them at once
                    note(began, "began")
                    note(got, repr(client.get_or_set("processes", load)))
                except BaseException as e:
                    note(got, repr(e))
                os._exit(0)
            children.append(pid)
        os.close(here)
        os.close(there)
        for pid in children:
            os.waitpid(pid, 0)
        assert lines(got) == ["'v'"] * 4 and lines(loads) == ["load"]
        assert client.get("processes") == "v"


DEAF = pytest.mark.parametrize("deaf", [False, True], ids=["told", "deaf"])


def turn_deaf(client: Any) -> None:
    """From now on the near cache hears neither of changes nor that there are none."""
    client._near.apply = lambda *_: True


@DEAF
def test_near_values_of_threads_are_outdated_for_the_bound_at_most(sidecar: Sidecar, deaf: bool) -> None:
    with Client(sidecar.path, shared_memory=False) as writer, Client(
        sidecar.path, shared_memory=False, near_cache=1 << 20, near_bound=BOUND
    ) as near:
        writer.set("k", "old")
        wait_for(lambda: near.get("k") == "old" and near.near_stats().hits > 3, "the near cache")
        if deaf:
            turn_deaf(near)
        writer.set("k", "new")
        written = monotonic()
        while True:
            asked = monotonic()
            if near.get("k") == "new":
                break
            assert asked - written < BOUND
        assert near.get("k") == "new"


@DEAF
def test_near_values_of_tasks_are_outdated_for_the_bound_at_most(sidecar: Sidecar, deaf: bool) -> None:
    async def main() -> None:
        async with AsyncClient(sidecar.path, shared_memory=False) as writer, AsyncClient(
            sidecar.path, shared_memory=False, near_cache=1 << 20, near_bound=BOUND
        ) as near:
            await writer.set("k", "old")
            while await near.get("k") != "old" or near.near_stats().hits <= 3:
                await asyncio.sleep(0.001)
            if deaf:
                turn_deaf(near)
            await writer.set("k", "new")
            written = monotonic()
            while True:
                asked = monotonic()
                if await near.get("k") == "new":
                    break
                assert asked - written < BOUND
                await asyncio.sleep(0)  # hits do not wait, and the near feed is to run
            assert await near.get("k") == "new"

    asyncio.run(asyncio.wait_for(main(), LIMIT))
