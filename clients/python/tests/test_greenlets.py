"""gevent and eventlet. The programs that they patch run in processes of their own, and the sidecar outside of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Iterator

import pytest

from raw import Sidecar, missing, python
from scripted import Peer, Server

#: sys.argv: the library, when it patches, and the socket. Everything is started by spawn, and joined by join.
HEAD = """
import faulthandler, os, sys, time
faulthandler.dump_traceback_later(40, exit=True)
library, when, path = sys.argv[1:4]

def patch():
    global spawn, join
    if library == "gevent":
        from gevent import monkey
        monkey.patch_all()
        import gevent
        spawn, join = gevent.spawn, gevent.joinall
    else:
        import eventlet
        eventlet.monkey_patch()
        eventlet.hubs.use_hub()  # after fork, as gunicorn does
        spawn, join = eventlet.spawn, lambda many: [one.wait() for one in many]

if when == "before":
    patch()
import cachesidecar
from cachesidecar import Client
if when == "after":
    patch()
"""

PROGRAM = """
cache = Client(path, near_cache=1 << 20, timeout=20, connect_timeout=10)
if when == "made":
    patch()

def writes(n):
    for i in range(20):
        cache.set(f"k{n}", f"{n}-{i}")
        assert cache.get(f"k{n}", fresh=True) == f"{n}-{i}"

def all_of(calls):
    wrong = []
    def run(call):
        try:
            call()
        except BaseException as e:
            wrong.append(repr(e))
    join([spawn(run, call) for call in calls])
    assert not wrong, wrong

cache.set("k", "v")
time.sleep(0.05)  # idle for longer than a connection may be without a look at it
assert cache.get("k", fresh=True) == "v"
all_of([lambda n=n: writes(n) for n in range(20)])

big = bytes(900_000)  # more than a socket takes at once
all_of([lambda n=n: cache.set(f"big{n}", big) for n in range(20)])
assert cache.get_many([f"big{n}" for n in range(10)]) == {f"big{n}": big for n in range(10)}

loads, got = [], []
def load():
    loads.append(1)
    time.sleep(0.1)
    return "loaded"
all_of([lambda: got.append(cache.get_or_set("load", load))] * 20)
assert got == ["loaded"] * 20 and len(loads) == 1, (got, loads)

events = cache.watch(["watched"])
assert next(events).kind == "reset"
writer = spawn(cache.set, "watched", 1)
assert next(event for event in events if event.kind != "beat").key == b"watched"
join([writer])

end = time.monotonic() + 20
while not cache.near_stats().hits or cache._memory.region is None:
    assert time.monotonic() < end, (cache.near_stats(), cache._memory.region)
    cache.get("k")
    time.sleep(0.01)
cache.close()
print("passed")
"""

BOTH = pytest.mark.parametrize("library", ["gevent", "eventlet"])


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[Sidecar]:
    one = Sidecar(tmp_path)
    yield one
    one.stop()


def run(program: str, library: str, when: str, path: str) -> None:
    if importlib.util.find_spec(library) is None:
        missing(f"install {library} (Debian: python3-{library}) to test the client with its greenlets")
    done = python(HEAD + program, library, when, path)
    assert done.stdout == "passed\n", done.stdout + done.stderr


@BOTH
@pytest.mark.parametrize("when", ["before", "after", "made"])
def test_greenlets_share_a_client(sidecar: Sidecar, library: str, when: str) -> None:
    """The package was imported, or a client was made, before or after the library had patched the process."""
    run(PROGRAM, library, when, sidecar.path)


POOL = """
import gevent, gevent.threadpool
cache = Client(path, near_cache=1 << 20, timeout=20, connect_timeout=10)
cache.set("k", "v")
assert cache.get("k") == "v"  # the first read with a near cache, which starts a greenlet, is not of the pool
wrong, loads, got = [], [], []

def writes(n):
    try:
        for i in range(100):
            cache.set(f"k{n}", i)
            if cache.get(f"k{n}") != i or cache.get(f"k{n}", fresh=True) != i:
                wrong.append((n, i))
    except BaseException as e:
        wrong.append((n, repr(e)))

def load():
    loads.append(1)
    time.sleep(0.1)
    return "loaded"

pool = gevent.threadpool.ThreadPool(6)
for _ in range(2):
    join([pool.spawn(writes, n) for n in range(6)] + [spawn(writes, 10 + n) for n in range(6)])
assert not wrong, wrong[:5]
def get():
    got.append(cache.get_or_set("load", load))
join([pool.spawn(get) for _ in range(6)] + [spawn(get) for _ in range(6)])
assert got == ["loaded"] * 12 and len(loads) == 1, (got, loads)
cache.close()
print("passed", flush=True)
os._exit(0)
"""


def test_threads_of_gevents_pool_have_connections_of_their_own(sidecar: Sidecar) -> None:
    """Its locks are slow, and its events not to be waited for, between threads."""
    run(POOL, "gevent", "before", sidecar.path)


FORKED = """
cache = Client(path, timeout=20, connect_timeout=10)
cache.set("k", "v")
children = []
for n in range(2):
    pid = os.fork()
    if pid == 0:
        try:
            patch()
            def writes(n):
                for i in range(20):
                    cache.set(f"k{os.getpid()}-{n}", i)
                    assert cache.get(f"k{os.getpid()}-{n}", fresh=True) == i
                done.append(n)
            done = []
            join([spawn(writes, n) for n in range(20)])
            assert len(done) == 20
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
        os._exit(1)
    children.append(pid)
assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]
assert cache.get("k") == "v"
print("passed")
"""


@BOTH
def test_a_forked_child_patches_itself(sidecar: Sidecar, library: str) -> None:
    """So does gunicorn --preload: the parent has made the client, and has used it."""
    run(FORKED, library, "forked", sidecar.path)


WAITS = """
cache = Client(path, shared_memory=False, timeout=20, connect_timeout=10)
got = []
join([spawn(lambda key=key: got.append(cache.get(key))) for key in ("a", "b", "c")])
assert sorted(got) == [b"a", b"b", b"c"], got
began = time.monotonic()
ticks = []
def tick():
    while time.monotonic() < began + 0.5:
        ticks.append(1)
        time.sleep(0.001)
ticking = spawn(tick)
try:
    cache.get("never", timeout=0.2)
    raise AssertionError("an answer")
except cachesidecar.TimeoutError:
    pass
assert ticks
join([ticking])
cache.close()
print("passed")
"""


@BOTH
def test_a_call_that_waits_lets_other_greenlets_run(library: str) -> None:
    """The server answers the calls of three greenlets once all of them have come."""

    def serve(peer: Peer, n: int) -> None:
        asked = [peer.request() for _ in range(3)]
        for request in reversed(asked):
            peer.answer(request[0], 0, request[4], 0, 5, 0, 2, 0)
        while peer.request():
            pass

    with Server(serve) as server:
        run(WAITS, library, "before", server.path)
        assert server.n == 1
