"""The calls that memcached's protocol has too, with both clients."""

from __future__ import annotations

import asyncio
from typing import Any, Callable, Dict, Iterator, List

import pytest

import cachesidecar as cs
from cachesidecar import NO_EXPIRY, AsyncClient, Client
from raw import LIMIT, Sidecar


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    one = Sidecar(tmp_path_factory.mktemp("s"))
    yield one
    one.stop()


#: Call makes a call by the name of its method, and returns the result.
Call = Callable[..., Any]


def with_client(path: str, use: Callable[[Call], None], settings: Dict[str, Any]) -> None:
    with Client(path, **settings) as client:
        use(lambda name, *args, **options: getattr(client, name)(*args, **options))


def with_async_client(path: str, use: Callable[[Call], None], settings: Dict[str, Any]) -> None:
    loop = asyncio.new_event_loop()
    client = AsyncClient(path, **settings)
    try:
        use(lambda name, *args, **options: loop.run_until_complete(getattr(client, name)(*args, **options)))
    finally:
        loop.run_until_complete(client.close())
        loop.close()


WITH = pytest.mark.parametrize("with_one", [with_client, with_async_client], ids=["sync", "async"])
LOCAL = [{"shared_memory": False}, {"shared_memory": False, "near_cache": 1 << 20}, {"shared_memory": True}]


@WITH
@pytest.mark.parametrize("settings", LOCAL, ids=["socket", "near", "shared"])
def test_what_they_do(
    sidecar: Sidecar, with_one: Callable[..., None], settings: Dict[str, Any], request: pytest.FixtureRequest
) -> None:
    key = request.node.name

    def use(call: Call) -> None:
        def reads(value: Any) -> None:
            for _ in range(5):  # no older value is near by
                assert call("get", key) == value

        reads(None)
        assert call("append", key, "b") is None
        first = call("append", key, "b", create=True, ttl=NO_EXPIRY, flags=256)
        assert first > 0
        reads("b")
        assert call("append", key, "c", create=True) > first
        reads("bc")
        assert call("prepend", key, b"a", ack_all=True, timeout=LIMIT) > first
        reads("abc")
        item = call("get_item", key)
        assert item.flags & ~0xFF == 256 and item.ttl is None
        assert call("get_and_touch", key, 60) == "abc"
        assert 0 < call("get_item", key).ttl <= 60
        assert call("get_and_touch", key, NO_EXPIRY) == "abc" and call("get_item", key, fresh=True).ttl is None
        with pytest.raises(cs.NotStoredError):
            call("incr_unsigned", key)
        assert call("delete", key, soft=True)
        assert call("get_and_touch", key, 60) is None and call("get_and_touch", key, 60, "default") == "default"
        assert call("prepend", key, "x") is None
        assert call("incr_unsigned", key) is None
        call("set", key, 40)
        reads(40)
        assert call("incr_unsigned", key, 2) == 42
        reads(42)
        assert call("incr_unsigned", key, 2**64 - 3) == 39  # it wraps
        assert call("decr_unsigned", key, 40) == 0
        reads(0)
        assert call("delete", key)
        assert call("decr_unsigned", key, initial=2**64 - 1, ttl=60) == 2**64 - 1
        assert call("incr_unsigned", key, 6) == 5 and call("get_item", key).ttl <= 60

    with_one(sidecar.path, use, settings)


@WITH
def test_bad_arguments(with_one: Callable[..., None]) -> None:
    def use(call: Call) -> None:
        for name, args, error in (
            ("append", ("k", 5), TypeError), ("prepend", ("k", None), TypeError),
            ("incr_unsigned", ("k", -1), cs.BadRequestError), ("decr_unsigned", ("k", 2**64), cs.BadRequestError),
            ("get_and_touch", ("k", None), cs.BadRequestError), ("get_and_touch", ("k", 0), cs.BadRequestError),
        ):
            with pytest.raises(error):
                call(name, *args)

    with_one("/nowhere", use, {})


@WITH
def test_metrics(sidecar: Sidecar, with_one: Callable[..., None]) -> None:
    told: List[Any] = []

    def use(call: Call) -> None:
        call("set", "measured", 1)
        call("get_and_touch", "measured", 60)
        call("delete", "measured", soft=True)
        call("get_and_touch", "measured", 60)

    with_one(sidecar.path, use, {"on_call": lambda op, result, *_: told.append((op, result))})
    assert told == [("set", "ok"), ("get_and_touch", "ok"), ("delete", "ok"), ("get_and_touch", "miss")]
