"""A HELLO that names another process ends the use of the region: the one before may have been killed."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict, Iterator, List

import pytest

from cachesidecar import AsyncClient, Client
from cachesidecar._hello import Welcome
from cachesidecar._memory import Memory
from cachesidecar.errors import Broken
from raw import LIMIT, Connection, Sidecar, wait_for

KILLED, NEXT = 1, 2


def told(epoch: int) -> Welcome:
    said: Dict[str, Any] = {"node": "n", "epoch": epoch, "features": ["shared"], "limits": {"value": 1}}
    return Welcome(said, 0, 0)


def test_the_region_is_of_the_latest_hello() -> None:
    asked: List[int] = []

    def attach(path: str, hello: Dict[str, Any], limit: float) -> Any:
        asked.append(1)
        return SimpleNamespace(epoch=int(path), closed=False)

    memory = Memory(attach, {}, LIMIT)
    memory.welcomed(str(KILLED), "", told(KILLED))
    region = wait_for(lambda: memory.region, "the region")
    assert memory._attaching is not None
    memory._attaching.join(LIMIT)
    memory.welcomed(str(KILLED), "", told(KILLED))
    assert memory.region is region
    memory.welcomed(str(NEXT), "", Welcome({"node": "n", "epoch": NEXT, "features": [], "limits": {"value": 1}}, 0, 0))
    assert memory.region is None
    memory.welcomed(str(NEXT), "", told(NEXT))
    assert wait_for(lambda: memory.region, "the next region").epoch == NEXT and len(asked) == 2
    memory.close()


def test_a_region_that_comes_after_the_next_hello_is_not_used() -> None:
    begun, go, offered = threading.Event(), threading.Event(), iter([KILLED, NEXT])

    def attach(path: str, hello: Dict[str, Any], limit: float) -> Any:
        epoch = next(offered)
        if epoch == KILLED:
            begun.set()
            assert go.wait(LIMIT)
        return SimpleNamespace(epoch=epoch, closed=False)

    memory = Memory(attach, {}, LIMIT)
    memory.welcomed("", "", told(KILLED))
    assert begun.wait(LIMIT)
    memory.welcomed("", "", told(NEXT))
    go.set()
    assert wait_for(lambda: memory.region, "the next region").epoch == NEXT
    memory.close()


def test_a_region_that_the_sidecar_has_ended_is_asked_for_again() -> None:
    regions = [SimpleNamespace(epoch=KILLED, closed=closed, get=lambda *_: None) for closed in (True, False)]
    left = iter(regions)
    memory = Memory(lambda *_: next(left, None), {}, LIMIT)
    assert memory.get(b"users", b"a") is None  # before any HELLO
    memory.welcomed("", "", told(KILLED))
    assert memory._attaching is not None
    memory._attaching.join(LIMIT)
    assert memory.region is regions[0]
    for _ in range(3):  # once is enough
        assert memory.get(b"users", b"a") is None
        memory._attaching.join(LIMIT)
        assert memory.region is regions[1]
    regions[1].closed = True
    memory.close()
    assert memory.get(b"users", b"a") is None and memory.region is None


class Two:
    """Two sidecars; a path leads to the first one, and then to the other one. The region of the first lives on."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "link"
        self.all = []
        for name in ("old", "new"):
            (folder / name).mkdir()
            self.all.append(Sidecar(folder / name))
            c = Connection(self.all[-1].path)
            c.set("default", b"k", name.encode())
            c.close()
        self.path.symlink_to(self.all[0].path)

    def go_on(self) -> None:
        self.path.unlink()
        self.path.symlink_to(self.all[1].path)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    both = Two(tmp_path)
    yield both
    for one in both.all:
        one.stop()


def shared(found: Any) -> bool:
    return found is not None and found.source == "shared"


def old_and_shared(found: Any) -> bool:
    return shared(found) and bool(found.data == b"old")


@pytest.mark.parametrize("reader", ["pure", "native"])
@pytest.mark.parametrize("door", ["call", "watch"])
def test_a_client_reads_nothing_from_the_process_before(
    two: Two, door: str, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHESIDECAR_PURE", "1" if reader == "pure" else "")
    with Client(str(two.path)) as client:
        wait_for(lambda: shared(client.get_item("k")), "k in the shared memory")
        two.go_on()
        if door == "call":
            assert client._link.live is not None
            client._link.live.end(Broken("it was killed"))
            client.set("other", "x")
        else:
            assert next(iter(client.watch())).kind == "reset"
        assert not old_and_shared(client.get_item("k"))
        wait_for(lambda: client._core.memory.region, "the next region")


@pytest.mark.parametrize("door", ["call", "watch"])
def test_an_async_client_reads_nothing_from_the_process_before(two: Two, door: str) -> None:
    async def run() -> None:
        async with AsyncClient(str(two.path)) as client:
            while not shared(await client.get_item("k")):
                await asyncio.sleep(0.002)
            two.go_on()
            if door == "call":
                assert client._link.live is not None
                client._link.live.end(Broken("it was killed"))
                await client.set("other", "x")
            else:
                async for event in client.watch():
                    assert event.kind == "reset"
                    break
            assert not old_and_shared(await client.get_item("k"))
            wait_for(lambda: client._core.memory.region, "the next region")

    asyncio.run(asyncio.wait_for(run(), LIMIT))
