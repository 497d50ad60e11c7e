"""What functions the decorator takes, whose keys are whose, and what a loader may do."""

# mypy: disallow_untyped_decorators=False, warn_return_any=False

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import inspect
import sys
import types
import weakref
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
from raw import Sidecar

from cachesidecar import AsyncClient, BadRequestError, Client, decorators


class Kept:
    """Stands for a client: keeps values in this process."""

    def __init__(self) -> None:
        self.values: Dict[Any, Any] = {}

    def get_or_set(self, key: Any, load: Callable[[], Any], **_: Any) -> Any:
        if key not in self.values:
            self.values[key] = load()
        return self.values[key]

    def delete(self, key: Any) -> bool:
        return self.values.pop(key, None) is not None

    def cached(self, function: Any = None, *, ttl: Any = None, key: Any = None) -> Any:
        return Client.cached(self, function, ttl=ttl, key=key)  # type: ignore[arg-type]


kept: Any = Kept()


def twice(f: Any) -> Any:
    @functools.wraps(f)
    def wrapper(*args: Any) -> Any:
        return f(*args) * 2

    return wrapper


def unnamed(f: Any) -> Any:
    return lambda *args: f(*args)


@kept.cached
def price(article: int, *, net: bool = False) -> str:
    return f"price of {article}"


@kept.cached(ttl=60)
@twice
def doubled(n: int) -> int:
    return n


@kept.cached
@functools.lru_cache(maxsize=None)
def remembered(n: int) -> int:
    return n


@kept.cached
def keywords(**kwargs: Any) -> str:
    return repr(sorted(kwargs.items()))


def plain(n: int) -> int:
    return n


plain_kept = kept.cached(plain)
plain_doubled = kept.cached(twice(plain))

in_a_loop: List[Any] = []
for table in "users", "orders":

    @kept.cached
    def row(n: int, table: str = table) -> str:
        return f"{n} of {table}"

    in_a_loop.append(row)


class First:
    @staticmethod
    @kept.cached
    def active(n: int) -> str:
        return f"first {n}"

    @kept.cached(key=lambda self, n: f"method {n}")
    def method(self, n: int) -> str:
        return f"{type(self).__name__} {n}"

    @classmethod
    @kept.cached(key=lambda cls, n: f"class {n}")
    def named(cls, n: int) -> str:
        return cls.__name__

    def __call__(self, n: int) -> str:
        return "called"


class Second:
    @staticmethod
    @kept.cached
    def active(n: int) -> str:
        return f"second {n}"


def test_keys() -> None:
    assert price(7) == "price of 7" and price.key(7) == f"{__name__}.price(article=7,net=False)"
    assert price.key(7, net=True) != price.key(7)
    assert len({price.key(n) for n in (1, True, 1.0, "1", b"1", None, (1,), ("1",))}) == 8
    assert keywords.key(a=1, b=2) == keywords.key(b=2, a=1) != keywords.key(**{"a=1,b": 2})
    assert doubled(3) == 6 and remembered(4) == 4 and plain_kept(5) == 5
    assert (First.active(1), Second.active(1)) == ("first 1", "second 1")
    assert First().method(2) == "First 2" and First.named(2) == "First"
    assert price.invalidate(7) and not price.invalidate(7) and First.method.invalidate(First(), 2)
    assert len(price.key("x" * 2000)) < 200


def test_names_that_are_not_the_function_s_own() -> None:
    for function in (
        lambda n: n, functools.partial(plain, 1), First(), First().method, First.named, unnamed(plain),
    ):
        with pytest.raises(TypeError, match="give cached a key= function"):
            kept.cached(function)
        assert kept.cached(function, key=lambda *args: f"own {args}") is not None

    def closure(n: int) -> int:
        return n

    with pytest.raises(TypeError, match="has no name of its own"):
        kept.cached(closure)
    with pytest.raises(TypeError, match="another function's"):
        plain_doubled(1)
    with pytest.raises(TypeError, match="another function's"):
        in_a_loop[0](1)
    assert in_a_loop[1](1) == "1 of orders"


def test_decorated_functions_are_freed() -> None:
    def handle() -> "weakref.ref[Any]":
        request = First()

        @kept.cached(key=lambda n: f"request {n}")
        def of_this_request(n: int) -> bool:
            return bool(request)

        of_this_request(1)
        return weakref.ref(request)

    gone = handle()
    gc.collect()
    assert gone() is None


def test_coroutine_functions(tmp_path: Path) -> None:
    client = AsyncClient(str(tmp_path / "none.sock"))

    async def load(n: int) -> int:
        return n

    decorated = client.cached(load, key=str)
    assert inspect.iscoroutinefunction(decorated) and asyncio.iscoroutinefunction(decorated)
    assert not inspect.iscoroutinefunction(price)
    with pytest.raises(TypeError, match="AsyncClient"):
        kept.cached(load, key=str)


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[Sidecar]:
    with_ = Sidecar(tmp_path)
    yield with_
    with_.stop()


def test_loader_of_its_own_key(sidecar: Sidecar) -> None:
    with Client(sidecar.path, shared_memory=False) as client:
        other = client.in_namespace("other")

        def load(depth: int = 0) -> Any:
            if depth == 0:
                return other.get_or_set("k", lambda: client.get_or_set("l", lambda: load(1)))
            return client.get_or_set("k", load)

        with pytest.raises(BadRequestError, match="would wait for itself"):
            client.get_or_set("k", load)
        assert other.get_or_set("k", lambda: client.get_or_set("k", lambda: 1)) == 1

    async def main() -> None:
        async with AsyncClient(sidecar.path) as client:
            async def load() -> List[Any]:
                return await asyncio.gather(client.get_or_set("m", load))

            with pytest.raises(BadRequestError, match="would wait for itself"):
                await client.get_or_set("m", load)
            assert await client.get_or_set("m", lambda: 2) == 2

    asyncio.run(main())


def test_loader_s_context(sidecar: Sidecar) -> None:
    """A load that waits for its turn runs as its caller, not as the one before it."""
    user = contextvars.ContextVar("user", default="nobody")

    async def main() -> None:
        async with AsyncClient(sidecar.path) as client:
            seen: List[Any] = []

            async def request(name: str) -> None:
                user.set(name)

                async def load() -> Any:
                    seen.append((name, user.get()))
                    await asyncio.sleep(0.01)
                    raise ValueError

                with pytest.raises(ValueError):
                    await client.get_or_set("k", load)

            await asyncio.gather(*[request(name) for name in ("ada", "bob", "cyd")])
            assert len(seen) >= 2 and all(name == got for name, got in seen), seen  # one that asks late loads again

    asyncio.run(main())


def test_a_program_has_one_name_in_all_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where multiprocessing spawns, the program is __mp_main__ in the child."""
    names = []
    for name, file in (("__main__", "/apps/a.py"), ("__mp_main__", "/apps/a.py"), ("__mp_main__", "/apps/b.py")):
        module = types.ModuleType(name)
        module.__file__, module.__spec__ = file, None
        monkeypatch.setitem(sys.modules, name, module)

        def function() -> None: ...

        function.__module__ = name
        names.append(decorators._module(function))
    assert names == ["/apps/a.py", "/apps/a.py", "/apps/b.py"]
