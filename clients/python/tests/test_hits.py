"""Reads that a client answers itself are reported, so that the sidecar's counts and its hottest keys have them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Dict, Iterator, List

import pytest
from raw import LIMIT, Connection, Sidecar, python, wait_for
from scripted import Peer, Server

from cachesidecar import AsyncClient, Client, _wire
from cachesidecar._hits import Hits, Tally


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    one = Sidecar(tmp_path_factory.mktemp("s"))
    yield one
    one.stop()


def counted(sidecar: Sidecar, namespace: str) -> Dict[str, int]:
    """Return the sidecar's counts of a namespace."""
    conn = Connection(sidecar.path)
    try:
        found = [ns for ns in conn.call(_wire.STATS)[2]["namespaces"] if ns["name"] == namespace]
        return dict(found[0]) if found else {"shared_hits": 0, "near_hits": 0}
    finally:
        conn.close()


def read(tally: Tally, keys: List[bytes]) -> None:
    """Count reads as a client does."""
    for key in keys:
        tally.reads += 1
        if tally.reads >= tally.due:
            tally.noted(key)


# -- the counts of a client


def test_one_key_of_sixteen_is_sampled_also_of_reads_in_turn() -> None:
    tally = Tally(b"n", False)
    names = [b"%d" % i for i in range(16)]
    read(tally, names * 200)
    assert len(tally.sample) == 200 and set(tally.sample) == set(names)
    read(tally, [b"late"] * 8)
    reads, absent, keys = tally.take()
    assert (reads, absent) == (3208, 0) and len(keys) in (200, 201)
    assert tally.take() == (0, 0, []) and tally.due == 0


def test_a_report_is_bounded() -> None:
    tally = Tally(b"n", False)
    read(tally, [b"short"] * 10_000)
    assert len(tally.take()[2]) == 256
    read(tally, [b"%1024d" % i for i in range(10_000)])
    assert 10 < len(tally.sample) and sum(map(len, tally.sample)) <= (32 << 10) + 1024
    tally.reads += 5 << 30
    tally.absent += 3 << 30
    taken = [tally.take() for _ in range(7)]
    assert max(reads for reads, _, _ in taken) == _wire.MAX_HITS
    assert sum(reads for reads, _, _ in taken) == (5 << 30) + 10_000
    assert sum(absent for _, absent, _ in taken) == 3 << 30


def test_tallies_are_bounded() -> None:
    hits = Hits()
    for i in range(10_000):
        hits.tally(b"%d" % i, False).reads += 1
    assert hits.count(False) == 512 and len(list(hits.take())) == 512


# -- with a sidecar


def warm(client: Client, key: str) -> int:
    """Read a key until it comes from the shared memory. Return how often it did."""
    wait_for(lambda: client._memory.region, "the shared memory")
    wait_for(lambda: client.get(key) is not None and client._core.hits.count(False), "a hit in shared memory")
    return client._core.hits.count(False)


def test_hits_in_shared_memory_are_counted_while_the_client_goes_on(sidecar: Sidecar) -> None:
    with Client(sidecar.path, namespace="sync") as client:
        client.set("hottest", "x")
        warm(client, "hottest")
        while client._core.hits.count(False) < 50_000:
            assert client.get("hottest") == "x"
        view = client.in_namespace("view")
        view.set("k", b"v")
        wait_for(lambda: view.get("k") and view.get_many(["k"]) and view._tally is not None, "the view's hits")
        ours, theirs = client._shared_tally(), view._shared_tally()
        wait_for(lambda: counted(sidecar, "sync")["shared_hits"] == ours.reads, "the count")
        wait_for(lambda: counted(sidecar, "view")["shared_hits"] == theirs.reads, "the view's count")
        got = counted(sidecar, "sync")
        assert got["hits"] >= got["shared_hits"] and got["misses"] == got["near_hits"] == 0
    conn = Connection(sidecar.path)
    hot = conn.call(21, "sync", 1)[2]["keys"]  # HOT
    conn.close()
    # 50,000 reads make some 195 samples: a half is ten standard errors.
    assert hot[0]["key"] == b"hottest" and 25_000 < hot[0]["reads"] < 75_000


@pytest.mark.parametrize("kind", ["shared", "near"])
def test_close_reports_what_is_left(sidecar: Sidecar, kind: str) -> None:
    settings: Dict[str, Any] = {"near_cache": 1 << 20, "shared_memory": False} if kind == "near" else {}
    client = Client(sidecar.path, namespace=f"close-{kind}", **settings)
    client.set("k", {"a": 1})
    wait_for(lambda: client.get("k") and client._core.hits.count(kind == "near") > 20, "hits")
    n = client._core.hits.count(kind == "near")
    client.close()
    wait_for(lambda: counted(sidecar, f"close-{kind}")[f"{kind}_hits"] == n, "the count")
    if kind == "near":
        assert client.near_stats().hits == n
    assert not [t for t in threading.enumerate() if t.name.startswith("cachesidecar")]


def test_tasks_report(sidecar: Sidecar) -> None:
    async def main() -> None:
        async with AsyncClient(sidecar.path, namespace="tasks") as client:
            await client.set("k", "v")
            while client._core.hits.count(False) < 100:
                assert await client.get("k") == "v"
                await asyncio.sleep(0)
            n = client._core.hits.count(False)
            while counted(sidecar, "tasks")["shared_hits"] != n:  # the timer
                await asyncio.sleep(0.01)
            while client._core.hits.count(False) < n + 10:
                await client.get("k")
        while counted(sidecar, "tasks")["shared_hits"] != client._core.hits.count(False):  # close
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(main(), LIMIT))


ENDS = '''
import asyncio, sys
from cachesidecar import AsyncClient, Client

path, kind = sys.argv[1:]
if kind == "sync":
    client = Client(path, namespace=kind + "-ends", timeout=20, connect_timeout=20)
    client.set("k", "v")
    while client._core.hits.count(False) < 20:
        client.get("k")
else:
    client = AsyncClient(path, namespace=kind + "-ends", timeout=20, connect_timeout=20)
    async def main():
        await client.set("k", "v")
        while client._core.hits.count(False) < 20:
            await client.get("k")
            await asyncio.sleep(0)
    asyncio.run(main())
print(client._core.hits.count(False))
'''


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_end_of_the_interpreter_reports_what_is_left(sidecar: Sidecar, kind: str) -> None:
    done = python(ENDS, sidecar.path, kind)
    assert not done.stderr
    n = int(done.stdout)
    wait_for(lambda: counted(sidecar, f"{kind}-ends")["shared_hits"] == n, "the count")


FORKS = '''
import os, sys, threading
alone = []
os.register_at_fork(before=lambda: alone.append([t.name for t in threading.enumerate()]))  # after the client's own
from cachesidecar import Client

client = Client(sys.argv[1], namespace="forks-" + sys.argv[2], timeout=20, connect_timeout=20)
if sys.argv[2] == "alone":
    client._core.later = lambda: False  # no thread can be started
client.set("k", "v")
while client._core.hits.count(False) < 20 or client._memory._attaching.is_alive():
    client.get("k")
before = client._core.hits.count(False)
pid = os.fork()
if not pid:
    child = 0
    while child < 5:
        child += client.get_item("k").source == "shared"
    client.close()
    os._exit(0)
os.waitpid(pid, 0)
client.close()
print(before + 5, alone)
'''


@pytest.mark.parametrize("kind", ["thread", "alone"])
def test_a_fork_finds_no_thread_and_no_count_of_the_parent(sidecar: Sidecar, kind: str) -> None:
    done = python(FORKS, sidecar.path, kind)
    assert not done.stderr
    n, alone = done.stdout.split(" ", 1)
    assert alone.strip() == "[['MainThread']]"
    wait_for(lambda: counted(sidecar, f"forks-{kind}")["shared_hits"] == int(n), "the count")


def test_without_a_thread_a_later_read_reports(sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(sidecar.path, namespace="alone") as client:
        monkeypatch.setattr(client._core, "later", lambda: False)
        client.set("k", "v")
        warm(client, "k")
        wait_for(lambda: client.get("k") and counted(sidecar, "alone")["shared_hits"], "a report")


# -- with a scripted one


def test_what_was_reported_is_not_kept() -> None:
    seen: List[Any] = []

    def serve(peer: Peer, n: int) -> None:
        while True:
            request = peer.request()
            if not request:
                return
            seen.append(request[1:])
            if request[1] == _wire.PING:
                peer.answer(request[0], 0)

    async def asynchronous(path: str) -> None:
        async with AsyncClient(path, namespace="n", shared_memory=False) as client:
            await client.ping()
            client._shared_tally().reads += 7
            client._core.report()
            client._core.report()
            await client.ping()

    with Server(serve) as server:
        with Client(server.path, namespace="n", shared_memory=False) as client:
            client.ping()
            client._shared_tally().reads += 7
            client._tally.absent += 2  # type: ignore[union-attr]
            client._core.report()
            client._core.report()
            client.ping()
        asyncio.run(asynchronous(server.path))
    sent = [request for request in seen if request[0] != _wire.PING]
    quiet = _wire.QUIET
    assert sent == [[_wire.HITS, 20000, "n", [], 5, 2, None, quiet], [_wire.HITS, 20000, "n", [], 7, None, None, quiet]]
    assert client._core.hits.tally(b"n", False).take() == (0, 0, [])


def test_a_report_waits_for_a_connection_and_lets_the_next_read_begin_again() -> None:
    client = Client("/nowhere", shared_memory=False)
    tally = client._shared_tally()
    read(tally, [b"k"])
    client._core.report()
    assert tally.due == 0 and not client._core.hits.pending and tally.take()[0] == 1
