"""A cache backend for Django, on the sidecar of this host.

    CACHES = {
        "default": {
            "BACKEND": "cachesidecar.django.CacheBackend",
            "LOCATION": "",  # the path of the socket; empty: the usual ones
            "OPTIONS": {"namespace": "django"},
        },
    }

OPTIONS are those of cachesidecar.Client, `pickle` and `writes`. With `fail_open`, which is the
default, a read without the sidecar is a miss, and the log has one line for each outage. A write
does not raise either if it only fills the cache: add, touch, the set of a key that the same thread
has missed in the same request, and a page of cache_page. Other writes raise, as they may leave an
outdated value. `"writes": "raise"` raises for all of them, and `"writes": "log"` for none but
deletions and incr.
"""

import contextlib
import logging
import math
import pickle
import threading
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple, TypeVar, Union

from asgiref.sync import sync_to_async
from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache, InvalidCacheKey
from django.core.exceptions import ImproperlyConfigured
from django.utils.safestring import SafeString

from . import _encode, errors
from ._calls import Key
from ._clock import monotonic
from ._item import Item
from .client import Client
from .errors import BadRequestError, CacheError

__all__ = ["CacheBackend"]

_log = logging.getLogger("cachesidecar.django")

_T = TypeVar("_T")
_Version = Optional[int]
_Timeout = Union[None, float, object]

_MISSING = object()
_MAX_KEY = 1024  # bytes
_YEAR = 365 * 24 * 3600  # the longest time that the sidecar takes; a cache may forget earlier
_OUTAGE = (errors.ConnectionError, errors.TimeoutError, errors.BusyError)
_UNREAD = (*_OUTAGE, errors.OriginError)  # of a read: with fail_open its key counts as a miss

# The mark of a pickle in the app's part of the flags. The encoding is bytes, so that other
# languages read the pickle as it is.
_PICKLE = 0x706B6C00
_SAFE = 0x73616600  # the mark of a text that is safe HTML; other languages read it as a text
_MAX_INT = (1 << 63) - 1
_PAGE = "views.decorators.cache.cache_"  # in the keys of pages, and of what they depend on
_SESSION = "django.contrib.sessions."  # in the keys of sessions
_FILLS_FOR = 60.0  # seconds after a miss in which a set only fills the cache
_SAY_AGAIN = 60.0  # seconds between two lines of the log about calls of which some keys have failed
_NOT_READ = "could not be read, and count as misses"
_MISSED = 1000  # keys that a thread remembers to have missed
_PLAIN = (bytes, str, int, bool, float, type(None))  # what comes back as it went


class _Shared:
    """A client, and whether it has been found down. All threads of a process share one."""

    def __init__(self, location: str, options: Mapping[str, Any]) -> None:
        self.client = Client(location or None, **options)
        self.down = False
        self._said = -math.inf  # when the log had its last line about some keys
        self._thread = threading.local()

    def _missed(self) -> Dict[str, float]:
        """The keys that this thread has missed in this request, and when, the oldest first."""
        missed: Optional[Dict[str, float]] = getattr(self._thread, "missed", None)
        if missed is None:
            missed = self._thread.missed = {}
        return missed

    def miss(self, made: str) -> None:
        missed = self._missed()
        missed.pop(made, None)
        missed[made] = monotonic()
        if len(missed) > _MISSED:
            del missed[next(iter(missed))]

    def known(self, made: str) -> None:
        """The cache has a value."""
        self._missed().pop(made, None)

    def next_request(self) -> None:
        self._missed().clear()

    def fills(self, made: str) -> bool:
        """Reports whether a set fills the cache after a miss. cache_page stores under a key that it has not missed."""
        return monotonic() - self._missed().get(made, -math.inf) < _FILLS_FOR or _PAGE in made

    def partly(self, some: int, keys: int, what: str, error: Exception) -> None:
        """Notes that the cache answers, but not for some keys."""
        if monotonic() - self._said >= _SAY_AGAIN:
            self._said = monotonic()
            _log.warning("%d of %d keys %s (%s)", some, keys, what, error)

    def went(self, error: Optional[Exception]) -> None:
        """Notes the outcome of a call, and logs a change."""
        if self.down != (error is not None):
            self.down = error is not None
            if self.down:
                _log.warning(
                    "the cache does not answer: until it does, each read is a miss, and nothing is stored (%s)", error
                )
            else:
                _log.warning("the cache answers again")


_clients: Dict[Tuple[str, str], _Shared] = {}  # as many as there are caches in the settings


def _shared(location: str, options: Mapping[str, Any]) -> _Shared:
    """Returns the client for some settings. Django makes a backend for each thread; they share it.

    There is no lock, as a destructor may make a backend as well. Of two clients that are made at once one is dropped.
    """
    name = (location, repr(sorted(options.items())))
    shared = _clients.get(name)
    if shared is None:
        try:
            shared = _clients.setdefault(name, _Shared(location, options))
        except (TypeError, BadRequestError) as e:
            raise ImproperlyConfigured(f"OPTIONS of the cache at {location!r}: {e}") from e
    return shared


@contextlib.contextmanager
def _hint() -> Iterator[None]:
    """Names the setting that stores values of any type."""
    try:
        yield
    except TypeError as e:
        raise TypeError(f'{e}; or set "pickle": True in OPTIONS of the cache') from None


class CacheBackend(BaseCache):  # type: ignore[misc]
    """Django's cache, with values that every language reads.

    A list comes back for a tuple, and a dict, a list and a datetime (which needs a time zone) as
    msgpack has them. A safe text stays safe. Other types raise TypeError, unless OPTIONS has
    `"pickle": True`: who can write to the cache can then run code in this process.
    """

    def __init__(self, location: str, params: Dict[str, Any]) -> None:
        super().__init__(params)
        options = {"namespace": "django", "fail_open": True, **params.get("OPTIONS", {})}
        self._pickle = bool(options.pop("pickle", False))
        self._fail_open = bool(options["fail_open"])
        self._writes = options.pop("writes", None if self._fail_open else "raise")
        if self._writes not in (None, "log", "raise"):
            raise ImproperlyConfigured(f'OPTIONS has "writes": {self._writes!r}: give "log", "raise", or leave it out')
        self._codec = _encode.Codec(self._to_bytes, self._from_bytes)
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
        """Returns what the client is given: the value, or what stands for it, with its mark."""
        if type(value) is SafeString:
            return str.__str__(value), _SAFE
        if self._pickle and (type(value) not in _PLAIN or type(value) is int and value.bit_length() > 63):
            return pickle.dumps(value, pickle.HIGHEST_PROTOCOL), _PICKLE
        return value, 0

    def _to_bytes(self, value: Any) -> Tuple[bytes, int]:
        data, flags = self._encode(value)
        with _hint():
            data, mark = _encode.encode(data)
        return data, flags | mark

    def _decode(self, item: Item) -> Any:
        return self._from_bytes(item.key, item.data, item.flags)

    def _from_bytes(self, key: bytes, data: bytes, flags: int) -> Any:
        if flags != _PICKLE:
            value = _encode.decode(key, data, flags)
            return SafeString(value) if flags == _SAFE | _encode.TEXT else value
        if not self._pickle:
            raise errors.EncodingError(
                f'the value of {key!r} is a pickle: delete it, or set "pickle": True in OPTIONS if you trust all '
                "who can write to the cache"
            )
        try:
            return pickle.loads(data)
        except Exception as e:
            raise errors.EncodingError(f"the pickle of {key!r} cannot be read ({e!r}): delete it") from e

    def _write(self, call: Callable[..., _T], key: str, value: Any, ttl: float) -> _T:
        data, flags = self._encode(value)
        with _hint():
            return call(key, data, ttl=ttl, flags=flags)

    def _logs(self, harmless: bool) -> bool:
        """Reports whether a write that an outage has kept from the cache is logged: its value is as good as evicted."""
        return self._writes == "log" or self._writes is None and harmless

    def _lost(self, error: Exception, harmless: bool) -> None:
        """Raises an error of a write, or logs it."""
        if not self._logs(harmless):
            raise error
        self._shared.went(error)

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
        except errors.OriginError as error:
            if not self._fail_open:
                raise
            self._shared.partly(1, 1, _NOT_READ, error)
            return missing
        if self._shared.down:
            self._shared.went(None)
        return result

    # -- what Django calls

    def get(self, key: Any, default: Any = None, version: _Version = None) -> Any:
        made = self._key(key, version)
        item = self._read(lambda: self._client.get_item(made), None)
        if item is None:
            self._shared.miss(made)
            return default
        self._shared.known(made)
        return self._decode(item)

    def get_many(self, keys: Iterable[Any], version: _Version = None) -> Dict[Any, Any]:
        """Returns the values that are there. An error has them, too, and those of the other keys, by the given keys."""
        made: Dict[Key, Any] = {self._key(key, version): key for key in keys}
        items, failed = self._client.get_items(made, partial=True)
        values: Dict[Any, Any] = {}
        for name, key in made.items():
            (self._shared.known if name in items else self._shared.miss)(str(name))
            if name in items:
                try:
                    values[key] = self._decode(items[name])
                except CacheError as error:
                    failed[name] = error
        self._unread(failed, len(made))
        if failed:
            raise errors.of_several(values, {made[name]: error for name, error in failed.items()})
        return values

    def _unread(self, failed: Dict[Key, CacheError], keys: int) -> None:
        """With fail_open, takes the keys away that count as misses."""
        lost = {name: error for name, error in failed.items() if self._fail_open and isinstance(error, _UNREAD)}
        for name in lost:
            del failed[name]
        outage = next((error for error in lost.values() if isinstance(error, _OUTAGE)), None)
        if outage is not None and len(lost) == keys:
            self._shared.went(outage)
        elif lost:
            self._shared.partly(len(lost), keys, _NOT_READ, next(iter(lost.values())))
        elif self._shared.down and not failed and keys:
            self._shared.went(None)

    def has_key(self, key: Any, version: _Version = None) -> bool:
        made = self._key(key, version)
        found = self._read(lambda: self._client.get_item(made), None) is not None
        (self._shared.known if found else self._shared.miss)(made)
        return found

    def set(self, key: Any, value: Any, timeout: _Timeout = DEFAULT_TIMEOUT, version: _Version = None) -> None:
        made, ttl = self._key(key, version), self._ttl(timeout)
        if ttl <= 0:
            self._expire(made)
            return
        try:
            self._write(self._client.set, made, value, ttl)
            self._shared.known(made)
        except _OUTAGE as error:
            self._lost(error, self._shared.fills(made))

    def add(self, key: Any, value: Any, timeout: _Timeout = DEFAULT_TIMEOUT, version: _Version = None) -> bool:
        made, ttl = self._key(key, version), self._ttl(timeout)
        if ttl <= 0:
            return not self.has_key(key, version)
        try:
            return self._write(self._client.add, made, value, ttl) is not None
        except _OUTAGE as error:
            self._lost(error, True)
            self._shared.miss(made)
            # A session goes on without the cache. A lock must not be had by all.
            return _SESSION in made

    def touch(self, key: Any, timeout: _Timeout = DEFAULT_TIMEOUT, version: _Version = None) -> bool:
        made, ttl = self._key(key, version), self._ttl(timeout)
        if ttl <= 0:
            return self._expire(made)
        try:
            return bool(self._client.touch(made, ttl))
        except _OUTAGE as error:
            self._lost(error, True)
            return False

    def delete(self, key: Any, version: _Version = None) -> bool:
        return bool(self._client.delete(self._key(key, version)))

    def incr(self, key: Any, delta: int = 1, version: _Version = None) -> Any:
        """Adds to a number. One of an int is a step of its own; else nothing else may have stored a value meanwhile."""
        made = self._key(key, version)
        while True:
            item = self._client.get_item(made, fresh=True)  # a near cache may have a version of before
            if item is None:
                raise ValueError(f"Key '{key}' not found")
            value = self._decode(item)
            if type(value) is int and type(delta) is int and -_MAX_INT <= value + delta <= _MAX_INT:
                number = self._client.incr(made, delta)
                if number is not None:
                    return number
                continue
            ttl = math.inf if item.ttl is None else item.ttl
            data, flags = self._encode(value + delta)
            with _hint():
                if self._client.compare_and_swap(made, data, item.version, ttl=ttl, flags=flags):
                    return value + delta

    def set_many(
        self, data: Mapping[Any, Any], timeout: _Timeout = DEFAULT_TIMEOUT, version: _Version = None
    ) -> List[Any]:
        """Stores values, those of a kind in one call. Returns the keys whose value went into the log, as set does."""
        ttl = self._ttl(timeout)
        given: Dict[str, Any] = {}
        values: Dict[int, Dict[Key, Any]] = {}  # by flags
        for key, value in data.items():
            stored, flags = self._encode(value)
            made = self._key(key, version)
            given[made] = key
            values.setdefault(flags, {})[made] = stored
        done: Dict[Any, Any] = {}
        raised: Dict[Any, CacheError] = {}
        lost: Dict[Any, CacheError] = {}
        for flags, some in values.items():
            with _hint():
                results, failed = self._client.set_many(
                    some, ttl=ttl, flags=flags, partial=True
                ) if ttl > 0 else self._client.delete_many(some, cache_only=True, partial=True)
            for name, result in results.items():
                if ttl > 0:
                    self._shared.known(str(name))
                done[given[str(name)]] = result
            for name, error in failed.items():
                logged = isinstance(error, _OUTAGE) and ttl > 0 and self._logs(self._shared.fills(str(name)))
                (lost if logged else raised)[given[str(name)]] = error
        if raised:
            raise errors.of_several(done, {**raised, **lost})
        if lost and done:
            self._shared.partly(len(lost), len(data), "were not stored", next(iter(lost.values())))
        elif lost:
            self._shared.went(next(iter(lost.values())))
        return list(lost)

    def delete_many(self, keys: Iterable[Any], version: _Version = None) -> None:
        made: Dict[Key, Any] = {self._key(key, version): key for key in keys}
        had, failed = self._client.delete_many(made, partial=True)
        if failed:
            raise errors.of_several(
                {made[name]: one for name, one in had.items()}, {made[name]: error for name, error in failed.items()}
            )

    async def aget_many(self, keys: Iterable[Any], version: _Version = None) -> Dict[Any, Any]:
        values: Dict[Any, Any] = await sync_to_async(self.get_many)(keys, version)
        return values

    async def aset_many(
        self, data: Mapping[Any, Any], timeout: _Timeout = DEFAULT_TIMEOUT, version: _Version = None
    ) -> List[Any]:
        failed: List[Any] = await sync_to_async(self.set_many)(data, timeout, version)
        return failed

    async def adelete_many(self, keys: Iterable[Any], version: _Version = None) -> None:
        await sync_to_async(self.delete_many)(keys, version)

    def get_or_set(
        self, key: Any, default: Any, timeout: _Timeout = DEFAULT_TIMEOUT, version: _Version = None
    ) -> Any:
        """Returns a value, or loads it: one process of the cluster calls default, the others wait for it."""
        ttl = self._ttl(timeout)
        load: Callable[[], Any] = default if callable(default) else lambda: default
        if ttl <= 0:  # the value is gone at once
            value = self.get(key, _MISSING, version)
            return load() if value is _MISSING else value
        return self._client._get_or_set(
            self._key(key, version), load, ttl, 0, False, False, None, self._codec
        )

    def clear(self) -> None:
        """Drops all keys of the namespace, on every host. It needs the right admin where there are rules."""
        self._client.flush()

    def close(self, **kwargs: Any) -> None:
        """Keeps the client, which other threads use: Django calls this after each request."""
        self._shared.next_request()
