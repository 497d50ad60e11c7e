"""The sync client."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple, Type, TypeVar, Union

from . import _calls, _encode, _wire
from ._calls import Call, Key
from ._item import Item
from ._link import Link
from ._settings import TTL, Settings
from .errors import BadRequestError, CacheError, Malformed, TooLargeError

_C = TypeVar("_C", bound="Client")


class _Core:
    """What all views of a client share."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.link = Link(settings)


class Client:
    """A client of the sidecar on this host, for threads. It is safe after fork.

    It connects with the first call. All of its threads, and its views of other namespaces, share one connection.
    """

    def __init__(
        self, socket: Optional[str] = None, *, namespace: str = "default", name: str = "", token: str = "",
        token_file: str = "", connect_timeout: float = 0.25, timeout: float = 1.0, load_timeout: float = 30.0,
        wait_timeout: float = 10.0, max_in_flight: int = 1024, max_loads: int = 4096, fail_open: bool = True,
        near_cache: int = 0, near_bound: float = 1.0, shared_memory: bool = True,
    ) -> None:
        settings = Settings(
            socket, namespace, name, token, token_file, connect_timeout, timeout, load_timeout, wait_timeout,
            max_in_flight, max_loads, fail_open, near_cache, near_bound, shared_memory,
        )
        self._open(_Core(settings), None)

    def _open(self, core: _Core, namespace: Optional[str]) -> None:
        self._core = core
        self._link = core.link
        self._timeout = core.settings.timeout
        self.namespace = core.settings.namespace if namespace is None else namespace
        self._ns = _wire.namespace(namespace)

    def in_namespace(self: _C, name: str) -> _C:
        """Return a view of the client with another namespace. Closing either one closes both."""
        view = object.__new__(type(self))
        view._open(self._core, name)
        return view

    def close(self) -> None:
        """Close the client. Calls in flight fail with ClosedError."""
        self._link.close()

    def __enter__(self: _C) -> _C:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def _call(self, call: Call, timeout: Optional[float]) -> List[Any]:
        message, conn = self._link.do(call, self._timeout if timeout is None else timeout)
        try:
            return _wire.decode(message[4:])
        except Malformed as e:
            conn.end(e)
            raise

    # -- reads

    def get(
        self, key: Key, default: Any = None, *, fresh: bool = False, stale_ok: bool = False, no_load: bool = False,
        timeout: Optional[float] = None,
    ) -> Any:
        """Return the value of a key, or default if it has none."""
        item = self.get_item(key, fresh=fresh, stale_ok=stale_ok, no_load=no_load, timeout=timeout)
        return default if item is None else item.value

    def get_item(
        self, key: Key, *, fresh: bool = False, stale_ok: bool = False, no_load: bool = False,
        timeout: Optional[float] = None,
    ) -> Optional[Item]:
        """Return the value of a key as it is stored, and what is known about it; None if it has none."""
        k = _calls.key_bytes(key)
        return _calls.item(k, self._call(_calls.get(self._ns, k, _calls.read_options(fresh, stale_ok, no_load)), timeout))

    # -- writes

    def set(
        self, key: Key, value: Any, *, ttl: TTL = None, flags: int = 0, ack_all: bool = False,
        timeout: Optional[float] = None,
    ) -> int:
        """Store a value. Return its version."""
        version = self._store(key, value, ttl, flags, _wire.MODE_SET, 0, ack_all, timeout)
        assert version
        return version

    def _store(
        self, key: Key, value: Any, ttl: TTL, flags: int, mode: int, compare: int, ack_all: bool,
        timeout: Optional[float],
    ) -> Optional[int]:
        data, mark = _encode.encode(value)
        call = _calls.store(
            self._ns, _calls.key_bytes(key), data, mark | _encode.app_flags(flags), ttl, mode, compare, ack_all
        )
        return _calls.stored(self._call(call, timeout))

    def ping(self, *, timeout: Optional[float] = None) -> None:
        """Ask the sidecar for an empty answer."""
        _calls.check(self._call(_calls.PING, timeout))
