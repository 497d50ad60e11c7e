"""Plays the calls of a conversation of clients/conformance with either client."""

from __future__ import annotations

import asyncio
import datetime
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from cachesidecar import AsyncClient, CacheError, Client, EncodingError

GENEROUS = 20.0  # seconds for which a condition is waited for


class LoadFailed(Exception):
    """The error of a loader that is to fail."""


def value_of(v: Dict[str, Any]) -> Any:
    """Return a VALUE of the manifest as a Python value."""
    if "text" in v:
        return v["text"]
    if "bin" in v:
        return bytes.fromhex(v["bin"])
    if "int" in v:
        return int(v["int"])
    if "of" in v:
        return v["of"] * v["count"]
    return plain(v["msgpack"])


def plain(v: Any) -> Any:
    if isinstance(v, dict):
        if "$bin" in v:
            return bytes.fromhex(v["$bin"])
        if "$int" in v:
            return int(v["$int"])
        if "$time" in v:
            return moment(v["$time"])
        return {k: plain(x) for k, x in v.items()}
    return [plain(x) for x in v] if isinstance(v, list) else v


def moment(text: str) -> datetime.datetime:
    form = "%Y-%m-%dT%H:%M:%S.%f%z" if "." in text else "%Y-%m-%dT%H:%M:%S%z"
    return datetime.datetime.strptime(text.replace("Z", "+0000"), form)


def same(a: Any, b: Any) -> bool:
    """Report whether two values are equal and of one type: 1 is neither True nor 1.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return bool(a == b)


def settings(c: Dict[str, Any]) -> Dict[str, Any]:
    return dict(
        timeout=c["timeout_ms"] / 1000, connect_timeout=c["connect_timeout_ms"] / 1000, namespace=c["namespace"],
        max_in_flight=c["max_in_flight"], near_cache=16 << 20 if c["near_cache"] else 0, fail_open=c["fail_open"],
        shared_memory=c["shared_memory"],
    )


class Player:
    """What both players share: the arguments of calls, and the comparison of results."""

    def __init__(self) -> None:
        self.version = 0
        self.loads = 0

    def call(self, client: Any, c: Dict[str, Any]) -> Tuple[Callable[[], Any], List[int]]:
        """Return what makes a call, and a list that has an element for each call of its loader."""
        do = c["do"]
        key = value_of(c["key"]) if "key" in c else None
        keys = [value_of(k) for k in c.get("keys", [])]
        value = value_of(c["value"]) if "value" in c else None
        options: Dict[str, Any] = {}
        if "timeout_ms" in c:
            options["timeout"] = c["timeout_ms"] / 1000
        for name in ("fresh", "stale_ok", "cache_only"):
            if name in c:
                options[name] = c[name]
        ttl = {"ttl": c["ttl_ms"] / 1000 if c["ttl_ms"] else float("inf")} if "ttl_ms" in c else {}
        loads: List[int] = []

        def load() -> Any:
            loads.append(1)
            if "error" in c["load"]:
                raise LoadFailed
            return value_of(c["load"])

        if do == "get":
            return lambda: client.get(key, MISS, **options), loads
        if do == "get_item":
            return lambda: client.get_item(key, **options), loads
        if do == "get_many":
            return lambda: client.get_many(keys, **options), loads
        if do in ("append", "prepend") and "create" in c:
            options["create"] = c["create"]
        if do in ("set", "add", "replace", "append", "prepend"):
            return lambda: getattr(client, do)(key, value, **ttl, **options), loads
        if do == "cas":
            version = self.version if c["version"] == "last" else c["version"]
            return lambda: client.compare_and_swap(key, value, version, **ttl, **options), loads
        if do == "delete":
            return lambda: client.delete(key, **options), loads
        if do == "delete_many":
            return lambda: client.delete_many(keys, **options), loads
        if do == "touch":
            return lambda: client.touch(key, ttl.get("ttl"), **options), loads
        if do in ("incr", "incr_unsigned", "decr_unsigned"):
            initial = c.get("initial")
            return lambda: getattr(client, do)(key, c["delta"], initial=initial, **ttl, **options), loads
        if do == "get_and_touch":
            return lambda: client.get_and_touch(key, ttl["ttl"], MISS, **options), loads
        if do == "get_or_set":
            return lambda: client.get_or_set(key, load, **ttl, **options), loads
        assert do in ("flush", "ping"), f"there is no call {do}"
        return lambda: getattr(client, do)(**options), loads

    def compare(self, c: Dict[str, Any], got: Any, error: Optional[BaseException], loads: List[int]) -> None:
        """Fail unless a call has the result that it is to have."""
        self.loads += len(loads)
        want = c.get("want")
        if c["do"] == "get_item" and error is None and got is not None:
            self.version = got.version
        if want is None:
            return
        if "error" in want:
            kinds = [want["error"]] if isinstance(want["error"], str) else want["error"]
            assert isinstance(error, CacheError) and error.kind in kinds, f"{c}: got {got!r}, {error!r}"
            return
        if want.get("load_error"):
            assert isinstance(error, LoadFailed), f"{c}: got {got!r}, {error!r}"
            return
        if want.get("cancelled"):
            assert isinstance(error, asyncio.CancelledError) or getattr(error, "kind", "") == "timeout", repr(error)
            return
        if error is not None:
            raise AssertionError(f"{c}: {error!r}") from error
        assert self.fits(c, want, got), f"{c}: got {got!r}"
        if "loads" in want:
            assert len(loads) == want["loads"], f"{c}: {len(loads)} loads"

    def fits(self, c: Dict[str, Any], want: Dict[str, Any], got: Any) -> bool:
        if want.get("miss"):
            return got is MISS or got is None or got == 0
        if "value" in want:
            return same(got, value_of(want["value"]))
        if c["do"] == "get_many":
            wanted = [v and value_of(v) for v in want.get("values", [])]
            return same([got.get(value_of(k)) for k in c.get("keys", [])], wanted)
        if "bytes" in want:
            return (
                got is not None and got.data.hex() == want["bytes"] and got.flags == want.get("flags", got.flags)
                and got.version == want.get("version", got.version)
                and want.get("ttl", got.ttl is not None) == (got.ttl is not None)
            )
        if "stored" in want:
            return bool(bool(got) == want["stored"])
        if "deleted" in want:
            return bool((list(got.values()) if isinstance(got, dict) else got) == want["deleted"])
        if "touched" in want:
            return bool(got == want["touched"])
        if "number" in want:
            return bool(got == int(want["number"]))
        return bool(want.get("ok"))


class _Miss:
    def __repr__(self) -> str:
        return "MISS"


MISS = _Miss()


class SyncPlayer(Player):
    def play(self, socket: str, c: Dict[str, Any], steps: List[Dict[str, Any]]) -> None:
        with Client(socket, **settings(c)) as client:
            for step in steps:
                self.step(client, step)

    def step(self, client: Client, step: Dict[str, Any]) -> None:
        if "wait_ms" in step:
            time.sleep(step["wait_ms"] / 1000)
        elif "together" in step:
            self.loads = 0
            self.together(client, step["together"])
            assert self.loads == step.get("loads", self.loads), f"{self.loads} loads"
        else:
            self.compare(step, *self.do(client, step))

    def do(self, client: Client, c: Dict[str, Any]) -> Tuple[Any, Optional[BaseException], List[int]]:
        if "cancel_ms" in c:
            c = {**c, "timeout_ms": c["cancel_ms"]}
        deadline = time.monotonic() + GENEROUS
        while True:
            call, loads = self.call(client, c)
            got, error = None, None
            try:
                got = call()
            except (CacheError, LoadFailed) as e:
                error = e
            if "until" not in c or same(got, value_of(c["until"])) or time.monotonic() > deadline:
                assert "until" not in c or same(got, value_of(c["until"])), f"the value did not come: {got!r} {error!r}"
                return got, error, loads
            time.sleep(0.01)

    def together(self, client: Client, calls: List[Dict[str, Any]]) -> None:
        """Begin calls in their order. A sync client needs a thread for each."""
        outcomes: List[Any] = [None] * len(calls)

        def run(at: int) -> None:
            outcomes[at] = self.do(client, calls[at])

        threads = [threading.Thread(target=run, args=(at,)) for at in range(len(calls))]
        try:
            conn: Any = client._link.get(GENEROUS)
            conn._leading.acquire()  # no answer is read until all calls have begun
        except CacheError:
            conn = None
        for at, thread in enumerate(threads):
            before = sent(client)
            thread.start()
            if at + 1 < len(calls) and calls[at]["do"] != "get_or_set":
                wait_for(lambda: sent(client) != before or not thread.is_alive())
        if conn is not None:
            conn._leave()
        for thread in threads:
            thread.join()
        for c, outcome in zip(calls, outcomes):
            self.compare(c, *outcome)


def sent(client: Client) -> int:
    """Return a number that grows with each request that is written, once its writer has ended or does not get on."""
    conn: Any = client._link.live
    if conn is None or not conn._writing.acquire(timeout=1):
        return 0
    n = int(conn._next)
    conn._unlock_writing()
    return n


def wait_for(condition: Callable[[], Any], what: str = "the condition") -> None:
    deadline = time.monotonic() + GENEROUS
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.001)


class AsyncPlayer(Player):
    def play(self, socket: str, c: Dict[str, Any], steps: List[Dict[str, Any]]) -> None:
        asyncio.run(self.run(socket, c, steps))

    async def run(self, socket: str, c: Dict[str, Any], steps: List[Dict[str, Any]]) -> None:
        async with AsyncClient(socket, **settings(c)) as client:
            for step in steps:
                if "wait_ms" in step:
                    await asyncio.sleep(step["wait_ms"] / 1000)
                elif "together" in step:
                    self.loads = 0
                    calls = step["together"]
                    for one, outcome in zip(calls, await asyncio.gather(*[self.do(client, one) for one in calls])):
                        self.compare(one, *outcome)
                    assert self.loads == step.get("loads", self.loads), f"{self.loads} loads"
                else:
                    self.compare(step, *await self.do(client, step))

    async def do(self, client: AsyncClient, c: Dict[str, Any]) -> Tuple[Any, Optional[BaseException], List[int]]:
        deadline = time.monotonic() + GENEROUS
        while True:
            call, loads = self.call(client, c)
            got, error = None, None
            task = asyncio.ensure_future(call())
            if "cancel_ms" in c:
                asyncio.get_running_loop().call_later(c["cancel_ms"] / 1000, task.cancel)
            try:
                got = await task
            except (CacheError, LoadFailed, asyncio.CancelledError) as e:
                error = e
            if "until" not in c or same(got, value_of(c["until"])) or time.monotonic() > deadline:
                assert "until" not in c or same(got, value_of(c["until"])), f"the value did not come: {got!r} {error!r}"
                return got, error, loads
            await asyncio.sleep(0.01)


assert EncodingError.kind == "encoding"
