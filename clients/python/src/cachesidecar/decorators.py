"""The decorator ``cached``: results of a function are kept, and made once in the cluster."""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
import sys
from typing import Any, Callable, Iterator, Optional

from ._calls import Key
from ._settings import TTL, ttl_ms
from ._wire import MAX_KEY

_PLAIN = (str, bytes, int, float, bool, type(None))


class Names:
    """Makes keys of a function's name and the arguments of a call.

    The name must be the function's own, or two functions would share their results: a closure or a lambda has the
    name of many, a partial or a callable object has none, and a wrapper may have that of the function within.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        name = getattr(function, "__qualname__", None)
        if name is None or "<" in name or inspect.ismethod(function):
            raise TypeError(
                f"{function!r} has no name of its own, of which a key could be made: give cached a key= function"
            )
        self._function, self._name = function, name
        code = getattr(function, "__code__", None)
        self._borrowed = code is None or code.co_name != function.__name__
        self._signature = inspect.signature(function)
        self._keywords = frozenset(
            p.name for p in self._signature.parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD
        )
        self.decorated: Any = None
        self._checked = False

    def __call__(self, *args: Any, **kwargs: Any) -> str:
        """Return the key of a call."""
        if not self._checked:
            self._check()
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        told = ",".join(f"{name}={self._plain(name, value)}" for name, value in bound.arguments.items())
        prefix = f"{_module(self._function)}.{self._name}"
        key = f"{prefix}({told})"
        if len(key.encode("utf-8", "surrogatepass")) <= MAX_KEY:
            return key
        return f"{prefix}#" + hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()

    def _check(self) -> None:
        """Refuse a function whose name leads to another one: the names are known at its first call at the latest."""
        found = _found(self._function.__module__, self._name)
        if found is not None and any(one is self._function or one is self.decorated for one in _wrapped(found)):
            self._checked = True
        elif self._borrowed or any(hasattr(one, "_cachesidecar") for one in _wrapped(found)):
            raise TypeError(
                f"the name {self._name} is another function's, and both would have the same keys: give cached a key= "
                "function, or the function a name in its module"
            )

    def _plain(self, name: str, value: Any) -> str:
        if type(value) in _PLAIN:
            return repr(value)
        if type(value) is tuple:
            return "(" + ",".join([self._plain(name, one) for one in value]) + ",)"
        if type(value) is dict and name in self._keywords:
            return "{" + ",".join([f"{k!r}={self._plain(name, value[k])}" for k in sorted(value)]) + "}"
        raise TypeError(
            f"the argument {name} of {self._name} is of type {type(value).__qualname__}, which makes no key: "
            "give cached a key= function"
        )


def _module(function: Callable[..., Any]) -> str:
    """Return the name of a function's module. All programs are __main__; a program's file tells them apart.

    In processes that multiprocessing has spawned a program is __mp_main__.
    """
    name: str = function.__module__
    main = sys.modules.get(name) if name in ("__main__", "__mp_main__") else None
    if main is None:
        return name
    spec = getattr(main, "__spec__", None)
    file: str = getattr(main, "__file__", None) or ""
    return str(spec.name) if spec is not None else os.path.abspath(file) if file else name


def _found(module: str, name: str) -> Any:
    """Return what has a name in a module; None: nothing."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _wrapped(found: Any) -> Iterator[Any]:
    """Return a function, and what it wraps, by functools.wraps and as a method."""
    for _ in range(100):
        if found is None:
            return
        yield found
        found = getattr(found, "__func__", None) or getattr(found, "__wrapped__", None)


def cached(
    client: Any, function: Optional[Callable[..., Any]], *, ttl: TTL, key: Optional[Callable[..., Key]], flags: int,
    stale_ok: bool,
) -> Any:
    """Decorate a function, or return the decorator.

    The key is made of the function's name and its arguments, which must be plain: str, bytes, int, float, bool, None,
    and tuples of these. Else give a key= function, which gets the same arguments; so do functions without a name of
    their own, such as closures and lambdas. A result of None is kept too. The decorated function has the attributes
    key, which returns the key of a call, and invalidate, which deletes its result in the whole cluster.
    """
    if function is None:
        return lambda f: cached(client, f, ttl=ttl, key=key, flags=flags, stale_ok=stale_ok)
    ttl_ms(ttl)
    names: Any = Names(function) if key is None else key
    loader = function

    def load(*args: Any, **kwargs: Any) -> Any:
        return client.get_or_set(
            names(*args, **kwargs), functools.partial(loader, *args, **kwargs), ttl=ttl, flags=flags,
            stale_ok=stale_ok,
        )

    decorated: Any = load
    if inspect.iscoroutinefunction(client.get_or_set):  # so that frameworks see what it is
        async def load_async(*args: Any, **kwargs: Any) -> Any:
            return await load(*args, **kwargs)

        decorated = load_async
    elif inspect.iscoroutinefunction(function):
        raise TypeError(f"{function!r} is a coroutine function: decorate it with an AsyncClient")
    decorated = functools.wraps(function)(decorated)

    def invalidate(*args: Any, **kwargs: Any) -> Any:
        return client.delete(names(*args, **kwargs))

    decorated.key, decorated.invalidate, decorated._cachesidecar = names, invalidate, True
    if isinstance(names, Names):
        names.decorated = decorated
    return decorated
