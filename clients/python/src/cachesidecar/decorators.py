"""The decorator ``cached``: results of a function are kept, and made once in the cluster."""

from __future__ import annotations

import functools
import hashlib
import inspect
import types
from typing import Any, Callable, Optional

from ._calls import Key
from ._settings import TTL, ttl_ms
from ._wire import MAX_KEY

_PLAIN = (str, bytes, int, float, bool, type(None))


def argument_key(function: Callable[..., Any], arguments: inspect.BoundArguments) -> str:
    """Return a key that is made of a function's name and its arguments."""
    told = ",".join(f"{name}={_plain(function, name, value)}" for name, value in arguments.arguments.items())
    key = f"{function.__module__}.{function.__qualname__}({told})"
    if len(key.encode("utf-8", "surrogatepass")) <= MAX_KEY:
        return key
    return f"{function.__module__}.{function.__qualname__}#" + hashlib.sha256(
        told.encode("utf-8", "surrogatepass")
    ).hexdigest()


def _plain(function: Callable[..., Any], name: str, value: Any) -> str:
    if type(value) in _PLAIN:
        return repr(value)
    if type(value) is tuple:
        return "(" + ",".join([_plain(function, name, one) for one in value]) + ",)"
    if type(value) is dict and name in _keywords(function):
        return "{" + ",".join([f"{k!r}={_plain(function, name, value[k])}" for k in sorted(value)]) + "}"
    raise TypeError(
        f"the argument {name} of {function.__qualname__} is of type {type(value).__qualname__}, which makes no key: "
        "give cached a key= function"
    )


@functools.lru_cache(maxsize=None)
def _signature(function: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(function)


def _keywords(function: Callable[..., Any]) -> "frozenset[str]":
    parameters = _signature(function).parameters.values()
    return frozenset(p.name for p in parameters if p.kind is inspect.Parameter.VAR_KEYWORD)


class Cached:
    """A decorated function. Calls return kept results; those of a coroutine function are awaited."""

    def __init__(
        self, client: Any, function: Callable[..., Any], ttl: TTL, key: Optional[Callable[..., Key]], flags: int,
        stale_ok: bool,
    ) -> None:
        ttl_ms(ttl)
        functools.update_wrapper(self, function)
        self._client, self._function, self._key = client, function, key
        self._ttl, self._flags, self._stale_ok = ttl, flags, stale_ok

    def key(self, *args: Any, **kwargs: Any) -> Key:
        """Return the key of a call's result."""
        if self._key is not None:
            return self._key(*args, **kwargs)
        bound = _signature(self._function).bind(*args, **kwargs)
        bound.apply_defaults()
        return argument_key(self._function, bound)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._client.get_or_set(
            self.key(*args, **kwargs), functools.partial(self._function, *args, **kwargs), ttl=self._ttl,
            flags=self._flags, stale_ok=self._stale_ok,
        )

    def invalidate(self, *args: Any, **kwargs: Any) -> Any:
        """Delete the result of a call, in the whole cluster."""
        return self._client.delete(self.key(*args, **kwargs))

    def __get__(self, instance: Any, owner: Optional[type] = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)


def cached(
    client: Any, function: Optional[Callable[..., Any]], *, ttl: TTL, key: Optional[Callable[..., Key]], flags: int,
    stale_ok: bool,
) -> Any:
    """Decorate a function, or return the decorator.

    The key is made of the function's name and its arguments, which must be plain: str, bytes, int, float, bool, None,
    and tuples of these. Else give a key= function, which gets the same arguments. A result of None is kept too.
    """
    if function is None:
        return lambda f: Cached(client, f, ttl, key, flags, stale_ok)
    return Cached(client, function, ttl, key, flags, stale_ok)
