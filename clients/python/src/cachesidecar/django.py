"""A cache backend for Django, on the sidecar of this host.

    CACHES = {
        "default": {
            "BACKEND": "cachesidecar.django.CacheBackend",
            "LOCATION": "",  # the path of the socket; empty: the usual ones
            "OPTIONS": {"namespace": "django"},
        },
    }

OPTIONS are those of cachesidecar.Client, and `pickle`. With `fail_open`, which is the default, a
read without the sidecar is a miss, and the log has one line for each outage. Writes raise: a
delete that was not done would leave an outdated value.
"""

import logging
import math
import os
import pickle
import threading
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple, TypeVar, Union

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache, InvalidCacheKey
from django.core.exceptions import ImproperlyConfigured

from . import errors
from ._calls import Key
from ._item import Item
from .client import Client
from .errors import BadRequestError

__all__ = ["CacheBackend"]

_log = logging.getLogger("cachesidecar.django")

_T = TypeVar("_T")
_Version = Optional[int]
_Timeout = Union[None, float, object]

_MISSING = object()
_MAX_KEY = 1024  # bytes
_YEAR = 365 * 24 * 3600  # the longest time that the sidecar takes; a cache may forget earlier
_OUTAGE = (errors.ConnectionError, errors.TimeoutError, errors.BusyError)

# The mark of a pickle in the app's part of the flags. The encoding is bytes, so that other
# languages read the pickle as it is.
_PICKLE = 0x706B6C00
_PLAIN = (bytes, str, int, bool, float, type(None))  # what comes back as it went


class _Shared:
    """A client, and whether it has been found down. All threads of a process share one."""

    def __init__(self, location: str, options: Mapping[str, Any]) -> None:
        self.client = Client(location or None, **options)
        self.down = False

    def went(self, error: Optional[Exception]) -> None:
        """Notes the outcome of a read, and logs a change."""
        if self.down != (error is not None):
            self.down = error is not None
            if self.down:
                _log.warning("the cache does not answer: until it does, each read is a miss (%s)", error)
            else:
                _log.warning("the cache answers again")


_clients: Dict[Tuple[str, str], _Shared] = {}  # as many as there are caches in the settings
_lock = threading.Lock()


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # another thread of the parent may hold the old one


os.register_at_fork(after_in_child=_after_fork)


def _shared(location: str, options: Mapping[str, Any]) -> _Shared:
    """Returns the client for some settings. Django makes a backend for each thread; they share it."""
    name = (location, repr(sorted(options.items())))
    with _lock:
        if name not in _clients:
            try:
                _clients[name] = _Shared(location, options)
            except (TypeError, BadRequestError) as e:
                raise ImproperlyConfigured(f"OPTIONS of the cache at {location!r}: {e}") from e
        return _clients[name]


class CacheBackend(BaseCache):  # type: ignore[misc]
    """Django's cache, with values that every language reads.

    A list comes back for a tuple, and a dict, a list and a datetime (which needs a time zone) as
    msgpack has them. Other types raise TypeError, unless OPTIONS has `"pickle": True`: who can
    write to the cache can then run code in this process.
    """

    def __init__(self, location: str, params: Dict[str, Any]) -> None:
        super().__init__(params)
        options = {"namespace": "django", "fail_open": True, **params.get("OPTIONS", {})}
        self._pickle = bool(options.pop("pickle", False))
        self._fail_open = bool(options["fail_open"])
        self._shared = _shared(location, options)
        self._client = self._shared.client

    # -- keys, times, values

    def _key(self, key: Any, version: _Version) -> str:
        made = str(self.make_key(key, version=version))
        self.validate_key(made)
        if not 0 < len(made.encode()) <= _MAX_KEY:
            raise InvalidCacheKey(f"the key {made[:80]!r}… has {len(made.encode())} bytes: give it 1 to {_MAX_KEY}")
        return made

    def _ttl(self, timeout: _Timeout) -> float:
        """Returns the seconds of a timeout. Zero and less: the value is gone at once."""
        if timeout is DEFAULT_TIMEOUT:
            timeout = self.default_timeout
        if timeout is None:
            return math.inf
        return min(float(timeout), _YEAR)  # type: ignore[arg-type]

    def _encode(self, value: Any) -> Tuple[Any, int]:
        """Returns what the client is given: the value, or a pickle with its mark."""
        if self._pickle and (type(value) not in _PLAIN or type(value) is int and value.bit_length() > 63):
            return pickle.dumps(value, pickle.HIGHEST_PROTOCOL), _PICKLE
        return value, 0

    def _decode(self, item: Any) -> Any:
        if item.flags != _PICKLE:
            return item.value
        if not self._pickle:
            raise errors.EncodingError(
                f'the value of {item.key!r} is a pickle: delete it, or set "pickle": True in OPTIONS if you trust all '
                "who can write to the cache"
            )
        return pickle.loads(item.data)

    def _write(self, call: Callable[..., _T], key: str, value: Any, ttl: float) -> _T:
        data, flags = self._encode(value)
        try:
            return call(key, data, ttl=ttl, flags=flags)
        except TypeError as e:
            raise TypeError(f'{e}; or set "pickle": True in OPTIONS of the cache') from None

    def _expire(self, made: str) -> bool:
        """Ends a value now, and returns whether there was one. What the namespace writes through to keeps its own."""
        return bool(self._client.delete(made, cache_only=True))

    def _read(self, read: Callable[[], _T], missing: _T) -> _T:
        """Returns what read returns. Without the sidecar that is missing, with fail_open."""
        try:
            result = read()
        except _OUTAGE as error:
            if not self._fail_open:
                raise
            self._shared.went(error)
            return missing
        if self._shared.down:
            self._shared.went(None)
        return result

    # -- what Django calls

    def get(self, key: Any, default: Any = None, version: _Version = None) -> Any:
        made = self._key(key, version)
        item = self._read(lambda: self._client.get_item(made), None)
        return default if item is None else self._decode(item)

    def get_many(self, keys: Iterable[Any], version: _Version = None) -> Dict[Any, Any]:
        made: Dict[Key, Any] = {self._key(key, version): key for key in keys}
        nothing: Dict[Key, Item] = {}
        items = self._read(lambda: self._client.get_items(made), nothing)
        return {made[name]: self._decode(item) for name, item in items.items()}

    def has_key(self, key: Any, version: _Version = None) -> bool:
        made = self._key(key, version)
        return self._read(lambda: self._client.get_item(made), None) is not None

    def set(self, key: Any, value: Any, timeout: _Timeout = DEFAULT_TIMEOUT, version: _Version = None) -> None:
        made, ttl = self._key(key, version), self._ttl(timeout)
        if ttl <= 0:
            self._expire(made)
        else:
            self._write(self._client.set, made, value, ttl)

    def add(self, key: Any, value: Any, timeout: _Timeout = DEFAULT_TIMEOUT, version: _Version = None) -> bool:
        made, ttl = self._key(key, version), self._ttl(timeout)
        if ttl <= 0:
            return self._client.get_item(made) is None
        return self._write(self._client.add, made, value, ttl) is not None

    def touch(self, key: Any, timeout: _Timeout = DEFAULT_TIMEOUT, version: _Version = None) -> bool:
        made, ttl = self._key(key, version), self._ttl(timeout)
        if ttl <= 0:
            return self._expire(made)
        return bool(self._client.touch(made, ttl))

    def delete(self, key: Any, version: _Version = None) -> bool:
        return bool(self._client.delete(self._key(key, version)))

    def incr(self, key: Any, delta: int = 1, version: _Version = None) -> int:
        number = self._client.incr(self._key(key, version), delta)
        if number is None:
            raise ValueError(f"Key '{key}' not found")
        return int(number)

    def set_many(
        self, data: Mapping[Any, Any], timeout: _Timeout = DEFAULT_TIMEOUT, version: _Version = None
    ) -> List[Any]:
        """Stores values. An error of one raises, so no key is ever returned as failed."""
        for key, value in data.items():
            self.set(key, value, timeout, version)
        return []

    def delete_many(self, keys: Iterable[Any], version: _Version = None) -> None:
        made = [self._key(key, version) for key in keys]
        if made:
            self._client.delete_many(made)

    def get_or_set(
        self, key: Any, default: Any, timeout: _Timeout = DEFAULT_TIMEOUT, version: _Version = None
    ) -> Any:
        """Returns a value, or loads it: one process of the cluster calls default, the others wait for it."""
        ttl = self._ttl(timeout)
        load: Callable[[], Any] = default if callable(default) else lambda: default
        if ttl <= 0 or self._pickle:
            value = self.get(key, _MISSING, version)
            if value is _MISSING:
                value = load()
                self._add(key, value, timeout, version)
            return value
        return self._client.get_or_set(self._key(key, version), load, ttl=ttl)

    def _add(self, key: Any, value: Any, timeout: _Timeout, version: _Version) -> None:
        """Stores a loaded value. With fail_open an outage does not matter: the caller has the value."""
        try:
            self.add(key, value, timeout, version)
        except _OUTAGE as error:
            if not self._fail_open:
                raise
            self._shared.went(error)

    def clear(self) -> None:
        """Drops all keys of the namespace, on every host. It needs the right admin where there are rules."""
        self._client.flush()

    def close(self, **kwargs: Any) -> None:
        """Keeps the client: Django calls this after each request, and other threads use it."""
