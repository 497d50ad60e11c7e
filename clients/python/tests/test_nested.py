"""A call within a call: by a destructor, a weakref's callback or a signal handler, at any point of the outer one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
from raw import HERE, LIMIT, Sidecar
from scripted import Peer, Server
from test_near import WELCOME, Bench, S, event

import cachesidecar as cs
from cachesidecar import Client, _hash, _wire
from cachesidecar._nested import Nesting

MINUTE = 60.0


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    one = Sidecar(tmp_path_factory.mktemp("s"))
    yield one
    one.stop()


def run(program: str, *arguments: str) -> str:
    """Return what a program prints. After a minute it says where its threads are, and ends."""
    watched = f"import faulthandler; faulthandler.dump_traceback_later({MINUTE}, exit=True)\n{program}"
    done = subprocess.run(
        [sys.executable, "-c", watched, *arguments], capture_output=True, text=True, timeout=2 * MINUTE,
        env={**os.environ, "PYTHONPATH": str(HERE.parent / "src")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


MADE = """
import sys, time
from cachesidecar import Client
near = "near" in sys.argv[2]
cache = Client(
    sys.argv[1], connect_timeout=20, timeout=20, near_cache=near << 20, shared_memory="shared" in sys.argv[2]
)
def follow():
    while near and not cache.near_stats().following:
        cache.get("x")
        time.sleep(0.01)
follow()
"""

DESTRUCTORS = MADE + """
import gc, threading
failed, ended = [], []

class Entry:
    def __init__(self, n):
        self.n, self.cycle = n, self

    def __del__(self):
        try:
            key = f"entry:{self.n}"
            cache.set(key, self.n)
            assert cache.get(key) == self.n
            cache.set_many({key: "new", f"{key}:2": 2})
            assert cache.get_many([key, f"{key}:2"]) == {key: "new", f"{key}:2": 2}
            assert cache.get_or_set(key, lambda: 1) == "new"
            assert cache.get_or_set(f"{key}:3", lambda: 3) == 3
            assert cache.delete(key) and cache.get(key) is None
            ended.append(self.n)
        except BaseException as e:
            failed.append((self.n, repr(e)))

def work(numbers):
    try:
        for n in numbers:
            Entry(n)
            cache.set(f"a{n % 5}", n)
            cache.get_or_set(f"b{n % 5}", lambda: {"a": [1, 2]}, ttl=0.05)
            cache.get_or_set(f"entry:{n}:3", lambda: 3)
            cache.get(f"b{n % 5}"), cache.get_item(f"a{n % 5}")
            cache.get_many([f"a{i}" for i in range(5)])
            cache.set_many({f"m{i}": [i] for i in range(5)})
            cache.delete(f"m{n % 5}")
    except BaseException as e:
        failed.append(("outer", repr(e)))

threads = [threading.Thread(target=work, args=[range(i, 300, 2)]) for i in range(2)]
gc.set_threshold(1, 1, 1)
[t.start() for t in threads], [t.join() for t in threads]
gc.set_threshold(700, 10, 10)
while len(ended) + len(failed) < 300:
    gc.collect()  # it does nothing while another thread collects
    time.sleep(0.01)
assert not failed, failed[:5]
follow()
print(len(ended))
"""


@pytest.mark.parametrize("kind", ["plain", "shared", "near", "near and shared"])
def test_destructors_call_the_client(sidecar: Sidecar, kind: str) -> None:
    """The collector runs them at any allocation, also while their thread has a lock of the client."""
    assert run(DESTRUCTORS, sidecar.path, kind) == "300\n"


FINALIZING = MADE + '''
import os, threading

class Entry:
    def __del__(self):  # when the module is taken down
        assert sys.is_finalizing()
        cache.set("at", "the end")
        told = cache.get("at"), cache.get_or_set("loaded", lambda: 7), cache.delete("at")
        os.write(1, repr(told).encode())

hold = """
for lock in cache._near._lock, cache._memory._lock, cache._link._dialing.own(), cache._state.loads._lock:
    lock.acquire()
held.wait()
threading.Event().wait()
"""
held = threading.Barrier(2)
names = {"cache": cache, "held": held, "threading": threading}  # a thread of its own names keeps none of this module's
threading.Thread(target=exec, args=(hold, names), daemon=True).start()
held.wait()
entry = Entry()
'''


def test_destructors_call_the_client_while_the_interpreter_ends(sidecar: Sidecar) -> None:
    """A thread that has the locks is stopped for ever."""
    assert run(FINALIZING, sidecar.path, "near") == "('the end', 7, True)"


GET, SET, LEASE, FILL = _wire.GET, _wire.SET, _wire.LEASE, _wire.FILL


class Interrupted:
    """Sends a signal to the main thread before it answers a request of the first connection; waits for its handler."""

    def __init__(self, op: int) -> None:
        self.op, self.over = op, threading.Event()
        self.ops: List[List[int]] = []

    def __call__(self, peer: Peer, n: int) -> None:
        self.ops.append([])
        while True:
            request = peer.request()
            if not request:
                return
            self.ops[n].append(request[1])
            if n == 0 and request[1] == self.op and not self.over.is_set():
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
                assert self.over.wait(LIMIT)
            if request[1] == GET and request[4] == b"inner":
                peer.answer(request[0], 0, b"of " + request[4], 0, 5, 0, 2, 0)
            elif request[1] == LEASE:
                peer.answer(request[0], _wire.LEASED, b"token")
            elif request[1] == GET:
                peer.answer(request[0], 1)
            else:
                peer.answer(request[0], 0, 7)


@pytest.mark.parametrize("op", [GET, SET, LEASE, FILL])
def test_a_signal_handler_calls_the_client(op: int) -> None:
    """Its thread is in a call, and may read for all threads. The handler's calls go over connections of their own."""
    inner: Dict[str, Any] = {}
    serve = Interrupted(op)
    with Server(serve) as server, Client(server.path, shared_memory=False) as client:

        def handle(*_: Any) -> None:
            calls: Dict[str, Callable[[], Any]] = {
                "get": lambda: client.get("inner"), "set": lambda: client.set("inner", 1),
                "load": lambda: client.get_or_set("outer", lambda: "loaded inside"),
                "set_many": lambda: client.set_many({"a": 1, "b": 2}),
            }
            try:
                for name, call in calls.items():
                    inner[name] = call()
            except Exception as e:
                inner["failed"] = e
            serve.over.set()

        before = signal.signal(signal.SIGUSR1, handle)
        try:
            assert client.set("outer", 1) == 7
            assert client.get_or_set("outer", lambda: "loaded") == "loaded"
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert inner == {"get": b"of inner", "set": 7, "load": "loaded inside", "set_many": {"a": 7, "b": 7}}
        assert serve.ops[0] == [SET, GET, LEASE, FILL]  # the outer calls alone
        assert client.get("outer") is None and len(serve.ops[0]) == 5  # by the first connection


def test_a_load_by_itself_needs_fail_open() -> None:
    with Client("/nowhere", fail_open=False) as client:
        nesting = client._core.nesting
        with pytest.raises(cs.ConnectionError):
            nesting.run(client.get_or_set, "k", int)
        client._find = lambda *_: 0  # type: ignore[assignment]
        with pytest.raises(cs.BusyError, match="within another call"):
            nesting.run(client.get_or_set, "k", int)


def test_the_calls_of_a_loader_may_wait() -> None:
    nesting = Nesting()
    assert nesting.may_wait()
    assert nesting.run(lambda: (nesting.may_wait(), nesting.leave(nesting.may_wait), nesting.may_wait())) == (
        False, True, False
    )
    assert nesting.run(nesting.run, nesting.may_wait) is False and nesting.may_wait()
    with pytest.raises(ZeroDivisionError):
        nesting.run(lambda: 1 // 0)
    assert nesting.may_wait()


def test_a_child_that_is_forked_within_a_call() -> None:
    """It begins anew; its parent's call goes on."""
    codes: List[int] = []
    serve = Interrupted(SET)
    with Server(serve) as server, Client(server.path, shared_memory=False) as client:

        def handle(*_: Any) -> None:
            pid = os.fork()
            if pid == 0:
                try:
                    os._exit(0 if client.get("inner") == client.get("inner") == b"of inner" else 1)
                finally:
                    os._exit(2)
            codes.append(os.waitpid(pid, 0)[1])
            serve.over.set()

        before = signal.signal(signal.SIGUSR1, handle)
        try:
            assert client.set("outer", 1) == 7
        finally:
            signal.signal(signal.SIGUSR1, before)
    assert codes == [0] and [len(ops) for ops in serve.ops] == [1, 2]  # one connection for the child's calls


class Interrupts:
    """A step of the near cache, before and after which a destructor runs."""

    def __init__(self, step: Callable[..., Any], destructor: Callable[[], None]) -> None:
        self.step, self.destructor = step, destructor

    def __call__(self, *args: Any) -> Any:
        self.destructor()
        result = self.step(*args)
        self.destructor()
        return result


OUTER: Dict[str, Callable[[Bench], Any]] = {
    "_note": lambda b: b.near.wrote(b.space, b"other", 1, int(11.3 * S)),
    "_put": lambda b: b.keep(as_of=101),
    "_cover": lambda b: b.apply(event(0, b.hash ^ 1, 1), sent=11.4),
    "_event": lambda b: b.apply(event(0, b.hash ^ 1, 1), event(0, b.hash ^ 2, 1), sent=11.4),
}
WRITES: Dict[str, Callable[[Bench], Any]] = {
    "known": lambda b: b.near.wrote(b.space, b"k", 500, int(11.4 * S)),
    "unknown": lambda b: b.near.wrote(b.space, b"k", 0, int(11.4 * S)),
    "flush": lambda b: b.near.drop(int(11.4 * S)),
}


@pytest.mark.parametrize("step", OUTER)
@pytest.mark.parametrize("write", WRITES)
def test_a_write_within_the_near_cache(write: str, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is seen at once, and when the work that it is within has ended. Then the cache is followed again."""
    b = Bench()
    seen: List[Any] = []

    def destructor() -> None:
        WRITES[write](b)
        b.keep(as_of=102)  # the answer to a read before the write
        seen.append(b.served(11.45))

    with monkeypatch.context() as patched:
        patched.setattr(b.near, step, Interrupts(getattr(b.near, step), destructor))
        OUTER[step](b)
    seen.append(b.served(11.45))
    assert seen == [None] * len(seen) and len(seen) > 2
    b.near.wrote(b.space, b"k", 500, int(11.4 * S))
    b.apply(sent=12)
    b.apply(sent=12.1)
    b.keep(at=12, as_of=501, version=500)
    assert b.served(12.2) == "v" and b.near.stats(0).bytes == sum(k.cost for k in b.near._queue.values())


def test_a_namespace_that_is_first_used_within_the_near_cache() -> None:
    b = Bench()
    step = b.near._cover
    found: List[Any] = []
    b.near._cover = lambda: (step(), found.append(b.near.space(b"new")))  # type: ignore[assignment, func-returns-value]
    b.near.apply(12 * S, 12 * S, {"reset": True, "seq": 9, "head": 9, "behind_ms": 0, "events": [None, None]}, WELCOME)
    assert found == [b.near.space(b"new")] and found[0].seed == _hash.namespace_seed(b"new", 5)


CLOSING = MADE + """
cache.get("a")
near = cache._near
def join(*args):
    raise AssertionError("it waits for the thread")
cache._state.near_feed._thread.join = join
assert near._do(lambda: cache.close() or True)  # as a destructor may, within the near cache's work
print("closed")
"""


def test_a_destructor_may_close_the_client(sidecar: Sidecar) -> None:
    """The thread that follows the sidecar needs the near cache's lock to end."""
    assert run(CLOSING, sidecar.path, "near") == "closed\n"
