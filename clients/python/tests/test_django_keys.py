"""The cache backend's calls of several keys of which some fail."""

from __future__ import annotations

import asyncio
import logging
import pickle
from typing import Any, Callable, Dict, Iterator, List

import pytest
from raw import missing

import cachesidecar as cs
from cachesidecar import _wire
from scripted import WELCOME, Server
from test_many import Keys, kinds

try:
    import django
    from django.conf import settings
    from django.core.cache.backends.base import InvalidCacheKey

    from cachesidecar import django as backend
except ImportError:
    missing("install Django (Debian: python3-django) to test the cache backend")


class Prefixed(Keys):
    """Answers keys of Django: the prefix, the version, and the app's own key. It stores the key once a single time."""

    stores = 0

    def item(self, op: int, name: str) -> List[Any]:
        assert name.startswith("site:2:")
        own = name.split(":")[2]
        if own == "pickle":
            return [0, b"no pickle", 0x706B6C00, 7, 0, 2, 0]
        if own == "value":
            return [0, pickle.dumps({1}), 0x706B6C00, 7, 0, 2, 0]
        if own == "once":
            self.stores += op == _wire.SET
            return [1, 0] if op == _wire.MGET else [0, 7] if self.stores == 1 else [21, "late here"]
        return super().item(op, own)


@pytest.fixture
def make() -> Iterator[Callable[..., Any]]:
    if not settings.configured:
        settings.configure(CACHES={}, USE_TZ=True)
        django.setup()
    with Server(Prefixed().serve) as server:
        def new(**options: Any) -> Any:
            params = {"OPTIONS": {"shared_memory": False, **options}, "KEY_PREFIX": "site", "VERSION": 2}
            return backend.CacheBackend(server.path, params)

        yield new
        for shared in backend._clients.values():
            shared.client.close()
        backend._clients.clear()


def called(cache: Any, name: str, asynchronous: bool) -> Callable[..., Any]:
    if not asynchronous:
        return getattr(cache, name)  # type: ignore[no-any-return]
    return lambda *args, **options: asyncio.run(getattr(cache, "a" + name)(*args, **options))


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_reads(make: Callable[..., Any], caplog: pytest.LogCaptureFixture, asynchronous: bool) -> None:
    get_many = called(make(), "get_many", asynchronous)
    with caplog.at_level(logging.WARNING, "cachesidecar.django"):
        for _ in range(3):
            got = get_many(["a", "down", "absent", "late", "lost", "busy", 5])
            assert got == {"a": "a", 5: "5"}
        assert get_many(["a"]) == {"a": "a"}
    assert [r.getMessage() for r in caplog.records] == ["4 of 7 keys could not be read, and count as misses (down here)"]
    strict = called(make(fail_open=False), "get_many", asynchronous)
    with pytest.raises(cs.OriginError, match="key 'down': down here") as caught:
        strict(["a", "down", "absent", "late", 5])
    assert list(caught.value.values) == ["a", 5] and kinds(caught.value.errors) == {"down": "origin", "late": "timeout"}


def test_what_is_no_outage_raises(make: Callable[..., Any]) -> None:
    cache = make(pickle=True)
    with pytest.raises(cs.BadRequestError) as caught:
        cache.get_many(["a", "down", "bad", "strange", "pickle", "value"])
    assert caught.value.values == {"a": "a", "value": {1}}
    assert kinds(caught.value.errors) == {"bad": "bad_request", "strange": "encoding", "pickle": "encoding"}
    with pytest.raises(InvalidCacheKey):  # as in Django's own backends, before anything is asked
        cache.get_many(["a", "x" * 2000])
    with pytest.raises(cs.EncodingError, match="is a pickle: delete it"):
        make().get_many(["a", "value"])


def test_one_key(make: Callable[..., Any]) -> None:
    """A single read takes the failure of the origin as the other ones."""
    cache, strict = make(), make(fail_open=False)
    assert cache.get("down", 5) == 5 and cache.get_many(["down"]) == {} and not cache.has_key("down")
    assert not cache._shared.down
    with pytest.raises(cs.OriginError):
        strict.get("down")


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_writes(make: Callable[..., Any], asynchronous: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WELCOME, "v", 2)
    cache = make(writes="log")
    set_many = called(cache, "set_many", asynchronous)
    values: Dict[Any, Any] = {"a": 1, "late": 2, "b": 3, 5: 4}
    assert set_many(values) == ["late"]  # as Django has it: the keys that are not stored
    assert set_many({"a": 1}) == []
    with pytest.raises(cs.OriginError) as caught:
        set_many({**values, "down": 1})
    assert list(caught.value.values) == ["a", "b", 5]
    assert kinds(caught.value.errors) == {"down": "origin", "late": "timeout"}
    strict = make(fail_open=False)
    with pytest.raises(cs.TimeoutError) as late:
        called(strict, "set_many", asynchronous)(values)
    assert list(late.value.values) == ["a", "b", 5] and kinds(late.value.errors) == {"late": "timeout"}
    for one in (cache, strict):
        with pytest.raises(cs.TimeoutError) as late:
            called(one, "delete_many", asynchronous)(["a", "late", "absent"])
        assert late.value.values == {"a": True, "absent": False} and kinds(late.value.errors) == {"late": "timeout"}
        with pytest.raises(cs.TimeoutError):
            called(one, "set_many", asynchronous)(values, timeout=0)


def test_a_set_after_a_miss_is_logged(make: Callable[..., Any]) -> None:
    cache = make()
    assert cache.get_many(["late", "lost", "a"]) == {"a": "a"}
    assert cache.set_many({"late": 1, "lost": 2, "b": 3}) == ["late", "lost"]  # they only fill the cache
    with pytest.raises(cs.TimeoutError) as caught:
        cache.set_many({"lost": 1, "late2": 2, "b": 3})
    assert kinds(caught.value.errors) == {"late2": "timeout", "lost": "unavailable"}
    assert cache.get_many(["once"]) == {} and cache.set_many({"once": 1}) == []
    with pytest.raises(cs.TimeoutError):  # it has a value by now, which would be outdated
        cache.set_many({"once": 2})


def test_an_outage(make: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    """The cache is down if it answers for no key at all."""
    cache = make()
    with caplog.at_level(logging.WARNING, "cachesidecar.django"):
        assert cache.get_many(["late", "lost"]) == {} and cache._shared.down
        assert cache.get_many(["a", "absent"]) == {"a": "a"} and not cache._shared.down
        assert cache.set_many({"late": 1, "lost": 2}) == ["late", "lost"] and cache._shared.down
    assert [r.getMessage().split(":")[0] for r in caplog.records] == [
        "the cache does not answer", "the cache answers again", "the cache does not answer",
    ]
