"""The asyncio client. Its methods are those of Client, as coroutines."""

from __future__ import annotations

import asyncio
import weakref
from types import TracebackType
from typing import Any, AsyncIterator, Callable, Dict, Iterable, List, Optional, Type, TypeVar, Union, cast

from . import _answers, _calls, _clock, _encode, _feed, _fork, _wire
from ._afollow import changes
from ._aloading import Load
from ._amany import ManyView
from ._astate import State
from ._calls import Key
from ._clock import monotonic
from ._core import FAIL_OPEN, Lifetime
from ._feed import Event, Place
from ._item import Item
from ._near import NearStats
from ._settings import TTL, Settings, ttl_ms
from .decorators import cached
from .errors import Broken, NotSent
from .metrics import OnCall

_C = TypeVar("_C", bound="AsyncClient")
_F = TypeVar("_F", bound=Callable[..., Any])
_boot_ns = _clock.boot_ns


class AsyncClient(ManyView):
    """A client of the sidecar on this host, for asyncio. It is safe after fork.

    It connects with the first call. It belongs to the event loop of that call until that loop is closed; a call from
    another loop is a RuntimeError. Calls of one tick share one write. A call may be cancelled at any time.
    """

    def __init__(
        self, socket: Optional[str] = None, *, namespace: str = "default", name: str = "", token: str = "",
        token_file: str = "", connect_timeout: float = 0.25, timeout: float = 1.0, load_timeout: float = 30.0,
        wait_timeout: float = 10.0, max_in_flight: int = 1024, max_loads: int = 4096, fail_open: bool = True,
        near_cache: int = 0, near_bound: float = 1.0, shared_memory: bool = True, on_call: Optional[OnCall] = None,
    ) -> None:
        settings = Settings(
            socket, namespace, name, token, token_file, connect_timeout, timeout, load_timeout, wait_timeout,
            max_in_flight, max_loads, fail_open, near_cache, near_bound, shared_memory,
        )
        state = State(settings, on_call)
        self._open(state, None)
        self._lifetime = Lifetime()
        _fork.remember(state)
        _fork.reports(state)
        weakref.finalize(self._lifetime, state.abandon).atexit = False

    def in_namespace(self: _C, name: str) -> _C:
        """Return a view of the client with another namespace. Closing either one closes both."""
        view = object.__new__(type(self))
        view._open(self._state, name)
        view._lifetime = self._lifetime
        return view

    async def close(self) -> None:
        """Close the client. Calls in flight fail with ClosedError; loads are cancelled."""
        await self._state.close()

    async def __aenter__(self: _C) -> _C:
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.close()

    # -- reads

    async def get(
        self, key: Key, default: Any = None, *, fresh: bool = False, stale_ok: bool = False, no_load: bool = False,
        timeout: Optional[float] = None,
    ) -> Any:
        """Return the value of a key, or default if it has none.

        fresh asks the key's owner, never a copy. stale_ok accepts a value that has expired or was deleted softly.
        no_load does not ask the namespace's origin.
        """
        try:
            k = key.encode() if type(key) is str else key
        except UnicodeEncodeError:
            k = _calls.key_bytes(key)  # says what is wrong
        if self._hook is not None or fresh or type(k) is not bytes:
            item = await self.get_item(key, fresh=fresh, stale_ok=stale_ok, no_load=no_load, timeout=timeout)
            return default if item is None else item.value
        near, space = self._near, self._space
        if near is not None and space is not None:
            lease = near.lease  # before the value is found; see Near.find
            kept = space.values.get(k)
            if kept is not None:
                now = _boot_ns()
                if now - lease < near.bound_ns and (not kept.ends or now < kept.ends):
                    kept.visited = True
                    tally = space.tally or self._near_tally(space)
                    tally.reads += 1
                    if tally.reads >= tally.due:
                        self._core.noted(tally, k)
                    value = kept.value
                    return value if value is not None else near.value(kept)
        elif timeout is None and not stale_ok and not no_load and 0 < len(k) < 256 and self._memory.region is None:
            conn = self._link.live
            own = self._state.loop is asyncio.get_running_loop()
            if conn is not None and conn.alive and conn.asked is None and own:
                began = monotonic()
                try:
                    id, future = conn.begin((4, self._get_head + _wire._BIN8[len(k)] + k), self._timeout, False)
                    try:
                        message = await future
                    except BaseException:  # cancelled, or failed
                        conn.give_up(id)
                        raise
                except (NotSent, Broken):
                    answer, conn = await self._call(_calls.get(self._ns, k, 0), None, None, began, 1)
                    item = _answers.item(k, answer, conn)
                    return default if item is None else item.value
                return _answers.value(k, message, conn, default)
        item = await self.get_item(key, stale_ok=stale_ok, no_load=no_load, timeout=timeout)
        return default if item is None else item.value

    async def get_item(
        self, key: Key, *, fresh: bool = False, stale_ok: bool = False, no_load: bool = False,
        timeout: Optional[float] = None,
    ) -> Optional[Item]:
        """Return the value of a key as it is stored, and what is known about it; None if it has none."""
        k = _calls.key_bytes(key)
        found = await self._find(k, fresh, stale_ok, no_load, timeout)
        return found if isinstance(found, Item) else None

    async def _find(
        self, k: bytes, fresh: bool, stale_ok: bool, no_load: bool, timeout: Optional[float]
    ) -> Union[Item, int]:
        """Return an item, or the reason of a miss."""
        if not fresh:
            local = self._near_by(k)
            if local is not None:
                return local
        asked = self._asked()
        answer, conn = await self._call(_calls.get(self._ns, k, self._options(fresh, stale_ok, no_load)), timeout)
        item = _answers.item(k, answer, conn)
        if item is None:
            return answer[2] if len(answer) > 2 and type(answer[2]) is int else 0
        self._keep(k, asked, conn.welcome.epoch, answer)
        return item

    # -- writes

    async def set(
        self, key: Key, value: Any, *, ttl: TTL = None, flags: int = 0, ack_all: bool = False,
        timeout: Optional[float] = None,
    ) -> int:
        """Store a value. Return its version.

        ttl is seconds, a timedelta, NO_EXPIRY, or None for the namespace's. flags are the app's own: a multiple of
        256. With ack_all the call returns once no host can serve the value before it.
        """
        return cast(int, await self._store(key, value, ttl, flags, _wire.MODE_SET, 0, ack_all, timeout))

    async def add(
        self, key: Key, value: Any, *, ttl: TTL = None, flags: int = 0, ack_all: bool = False,
        timeout: Optional[float] = None,
    ) -> Optional[int]:
        """Store a value if the key has none. Return its version; None: the key has a value."""
        return await self._store(key, value, ttl, flags, _wire.MODE_ADD, 0, ack_all, timeout)

    async def replace(
        self, key: Key, value: Any, *, ttl: TTL = None, flags: int = 0, ack_all: bool = False,
        timeout: Optional[float] = None,
    ) -> Optional[int]:
        """Store a value if the key has one. Return its version; None: the key has no value."""
        return await self._store(key, value, ttl, flags, _wire.MODE_REPLACE, 0, ack_all, timeout) or None

    async def compare_and_swap(
        self, key: Key, value: Any, version: int, *, ttl: TTL = None, flags: int = 0, ack_all: bool = False,
        timeout: Optional[float] = None,
    ) -> Optional[int]:
        """Store a value if the key's version is still the given one, that of get_item.

        Return the new version; None: another value is there; 0: the key has no value.
        """
        return await self._store(key, value, ttl, flags, _wire.MODE_CAS, version, ack_all, timeout)

    async def append(
        self, key: Key, value: Union[str, bytes], *, create: bool = False, ttl: TTL = None, flags: int = 0,
        ack_all: bool = False, timeout: Optional[float] = None,
    ) -> Optional[int]:
        """Put a piece behind a key's value. Return the new version; None: the key has no value.

        The value keeps its encoding, its flags and its ttl. With create a key without a value gets the piece as its
        value, with ttl and flags.
        """
        mode = _wire.MODE_APPEND
        return await self._store(key, value, ttl, flags, mode, 0, ack_all, timeout, create) or None

    async def prepend(
        self, key: Key, value: Union[str, bytes], *, create: bool = False, ttl: TTL = None, flags: int = 0,
        ack_all: bool = False, timeout: Optional[float] = None,
    ) -> Optional[int]:
        """Put a piece before a key's value. See append."""
        mode = _wire.MODE_PREPEND
        return await self._store(key, value, ttl, flags, mode, 0, ack_all, timeout, create) or None

    async def _store(
        self, key: Key, value: Any, ttl: TTL, flags: int, mode: int, compare: int, ack_all: bool,
        timeout: Optional[float], create: bool = False,
    ) -> Optional[int]:
        call = self._store_call(key, value, ttl, flags, mode, compare, ack_all, self._link.max_value, create)
        answer, _ = await self._call(call, timeout)
        return _calls.stored(answer)

    async def delete(
        self, key: Key, *, soft: bool = False, cache_only: bool = False, replica_lag: Optional[float] = None,
        ack_all: bool = False, timeout: Optional[float] = None,
    ) -> bool:
        """Remove a key's value from the whole cluster. Return whether it had one.

        soft keeps the value for reads with stale_ok. cache_only leaves the origin of a namespace that writes through
        as it is. replica_lag is the time, in seconds, for which loaded values are not kept, for an origin whose
        replicas lag.
        """
        call = _calls.delete(self._ns, [_calls.key_bytes(key)], soft, cache_only, replica_lag, ack_all)
        answer, _ = await self._call(call, timeout)
        return _calls.deleted_one(answer)

    async def touch(
        self, key: Key, ttl: TTL = None, *, ack_all: bool = False, timeout: Optional[float] = None
    ) -> bool:
        """Give a key's value a new ttl. Return whether the key has a value."""
        answer, _ = await self._call(_calls.touch(self._ns, _calls.key_bytes(key), ttl, ack_all), timeout)
        return _calls.present(answer)

    async def get_and_touch(
        self, key: Key, ttl: TTL, default: Any = None, *, timeout: Optional[float] = None
    ) -> Any:
        """Return the value of a key, or default if it has none, and give it a new ttl in the same step.

        The host that owns the key is asked, never a copy.
        """
        k = _calls.key_bytes(key)
        answer, conn = await self._call(_calls.get_and_touch(self._ns, k, ttl), timeout)
        item = _answers.touched_item(k, answer, conn)
        return default if item is None else item.value

    async def incr(
        self, key: Key, delta: int = 1, *, initial: Optional[int] = None, ttl: TTL = None, ack_all: bool = False,
        timeout: Optional[float] = None,
    ) -> Optional[int]:
        """Add to a number of 64 bits, and return the sum.

        A key without a value gets the initial number, with ttl; without initial the result is None.
        """
        call = _calls.incr(self._ns, _calls.key_bytes(key), delta, initial, ttl, ack_all)
        answer, _ = await self._call(call, timeout)
        return _calls.number(answer)

    async def decr(
        self, key: Key, delta: int = 1, *, initial: Optional[int] = None, ttl: TTL = None, ack_all: bool = False,
        timeout: Optional[float] = None,
    ) -> Optional[int]:
        """Subtract from a number of 64 bits. See incr."""
        return await self.incr(key, -delta, initial=initial, ttl=ttl, ack_all=ack_all, timeout=timeout)

    async def incr_unsigned(
        self, key: Key, delta: int = 1, *, initial: Optional[int] = None, ttl: TTL = None, ack_all: bool = False,
        timeout: Optional[float] = None,
    ) -> Optional[int]:
        """Add to a number of 64 bits without a sign, and return the sum, which wraps at 2**64.

        A key without a value gets the initial number, with ttl; without initial the result is None.
        """
        call = _calls.unsigned(self._ns, _calls.key_bytes(key), delta, initial, ttl, False, ack_all)
        answer, _ = await self._call(call, timeout)
        return _calls.number(answer)

    async def decr_unsigned(
        self, key: Key, delta: int = 1, *, initial: Optional[int] = None, ttl: TTL = None, ack_all: bool = False,
        timeout: Optional[float] = None,
    ) -> Optional[int]:
        """Subtract from a number of 64 bits without a sign. The result stops at 0. See incr_unsigned."""
        call = _calls.unsigned(self._ns, _calls.key_bytes(key), delta, initial, ttl, True, ack_all)
        answer, _ = await self._call(call, timeout)
        return _calls.number(answer)

    # -- loads

    async def get_or_set(
        self, key: Key, loader: Callable[[], Any], *, ttl: TTL = None, flags: int = 0,
        fresh: bool = False, stale_ok: bool = False, timeout: Optional[float] = None,
    ) -> Any:
        """Return a key's value. If it has none, one caller in the whole cluster loads and stores it.

        See Client.get_or_set. The loader is a function or a coroutine function; it runs in a task of its own, with the
        context of the call that began it, and ends with load_timeout. It is cancelled with the last of its callers.
        """
        ttl_ms(ttl)
        k = _calls.key_bytes(key)
        alone = False
        try:
            found = await self._find(k, fresh, stale_ok, False, timeout)
        except FAIL_OPEN:
            if not self._core.settings.fail_open:
                raise
            alone = True
        else:
            if isinstance(found, Item):
                return found.value
            if found == _wire.ABSENT:
                return None
            alone = found == _wire.DEGRADED
        load = Load(self, k, loader, ttl, _encode.app_flags(flags), _calls.read_options(fresh, stale_ok, False))
        return await load.run(alone)

    def cached(
        self, function: Optional[_F] = None, *, ttl: TTL = None, key: Optional[Callable[..., Key]] = None,
        flags: int = 0, stale_ok: bool = False,
    ) -> Any:
        """Decorate a coroutine function: its results are kept, and made once in the cluster. See decorators.cached."""
        return cached(self, function, ttl=ttl, key=key, flags=flags, stale_ok=stale_ok)

    # -- the rest

    async def flush(self, *, all: bool = False, cluster: bool = True, timeout: Optional[float] = None) -> None:
        """Empty the namespace on every host; with all every namespace, without cluster on this host alone."""
        answer, _ = await self._call(_calls.flush(self._ns, all, cluster), timeout)
        _calls.check(answer)

    async def ping(self, *, timeout: Optional[float] = None) -> None:
        """Ask the sidecar for an empty answer."""
        answer, _ = await self._call(_calls.PING, timeout)
        _calls.check(answer)

    async def stats(self, *, cluster: bool = False, timeout: Optional[float] = None) -> Dict[str, Any]:
        """Return the sidecar's statistics; docs/METRICS.md has the fields."""
        answer, _ = await self._call(_calls.stats(cluster), timeout)
        return cast(Dict[str, Any], _calls.body(answer, dict))

    async def members(self, *, timeout: Optional[float] = None) -> List[Dict[str, Any]]:
        """Return the hosts of the cluster, as this host sees them."""
        answer, _ = await self._call(_calls.MEMBERS, timeout)
        return cast(List[Dict[str, Any]], _calls.body(answer, list))

    def near_stats(self) -> NearStats:
        """Return the near cache's statistics; zeros without one."""
        return self._core.near_stats()

    async def watch(
        self, keys: Iterable[Key] = (), *, all: bool = False, beat: float = 1.0
    ) -> AsyncIterator[Event]:
        """Yield changes in the whole cluster as the sidecar hears of them. See Client.watch."""
        names = [_calls.key_bytes(key) for key in keys]
        _feed.check_watch(names, beat)
        place = Place(self._ns, _wire.ALL if all else 0, beat)
        told = changes(self._core.settings, self._link, place, self.namespace, names)
        try:
            async for event in told:
                yield event
        finally:
            await told.aclose()  # its connection ends with this iterator, not later
