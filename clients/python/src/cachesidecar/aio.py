"""The asyncio client. Its methods are those of Client, as coroutines."""

from __future__ import annotations

import asyncio
import inspect
import weakref
from time import monotonic
from types import TracebackType
from typing import (
    Any, AsyncIterator, Awaitable, Callable, Dict, Iterable, List, Mapping, Optional, Tuple, Type, TypeVar, Union,
    cast,
)

from . import _calls, _clock, _encode, _feed, _fork, _wire, metrics
from ._alink import Greeted, Link
from ._calls import Call, Key
from ._core import FAIL_OPEN, Core, View, pages
from ._feed import Event, Place
from ._item import Item
from ._loads import Flight, Loads
from ._near import Near, NearStats
from ._settings import TTL, Settings, seconds, ttl_ms
from .decorators import Cached, cached
from .errors import Broken, CacheError, ClosedError, Malformed, NotSent, TimeoutError
from .metrics import OnCall

_C = TypeVar("_C", bound="AsyncClient")
_F = TypeVar("_F", bound=Callable[..., Any])
_boot_ns = _clock.boot_ns
_BATCH = 256  # requests that are sent together


class _Flight(Flight):
    """A flight that a task of its own carries out. It ends with the last of its callers at the latest."""

    def __init__(self, alone: bool) -> None:
        super().__init__(alone)
        self.load: Any = None  # of the first caller
        self.task: Optional["asyncio.Task[None]"] = None
        self.waiters: List["asyncio.Future[None]"] = []
        self.left = False  # by its last caller


class _Shared(Core):
    """What the views of one client share."""

    def __init__(self, settings: Settings, on_call: Optional[OnCall]) -> None:
        super().__init__(settings, on_call)
        self.link = Link(settings, self.memory.welcomed)
        self.loads: Loads[_Flight] = Loads(settings.max_loads)
        self.tasks: "set[asyncio.Task[None]]" = set()
        self.follower: Optional[_Follower] = None
        self.loop: Optional[asyncio.AbstractEventLoop] = None

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Belong to a loop. If the loop before it was closed, begin anew."""
        if self.loop is not None and not self.loop.is_closed():
            raise RuntimeError("this AsyncClient belongs to another event loop: make one client for each loop")
        if self.loop is not None:
            self.drop()
        self.loop = loop

    def drop(self) -> None:
        """Begin anew: connections and tasks belonged to a loop that was closed, or to a parent process."""
        if self.follower is not None:
            self.follower.link.drop()
            self.follower = None
        if self.near is not None:
            self.near.forked()
        self.link.drop()
        self.loads = Loads(self.settings.max_loads)
        self.tasks = set()

    def follow(self) -> None:
        """Start to follow the sidecar for the near cache."""
        if self.near is not None and not self.link.closed:
            self.follower = _Follower(self.settings, self.near)

    async def close(self) -> None:
        self.link.close()
        follower, self.follower = self.follower, None
        if follower is not None:
            await follower.close()
        for task in list(self.tasks):
            task.cancel()
        if self.tasks:
            await asyncio.wait(list(self.tasks))
        self.memory.close()

    def forked(self) -> None:
        """Begin anew in a forked child."""
        self.drop()
        self.memory.forked()
        self.loop = None

    def abandon(self) -> None:
        """Close what a client that was dropped, not closed, has open."""
        if self.loop is None or self.loop.is_closed():
            self.drop()
        self.memory.close()


class _Follower:
    """The task that follows the sidecar for the near cache, over a connection of its own."""

    def __init__(self, settings: Settings, near: Near) -> None:
        self.link = Link(settings)
        self._settings, self._near = settings, near
        self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        place = Place(_wire.NIL, _wire.ALL, self._near.bound_ns / 4e9)
        tries = 0
        try:
            while True:
                try:
                    sent = _boot_ns()
                    told, conn = await ask(self.link, place, self._settings.timeout)
                    if not self._near.apply(sent, _boot_ns(), told, conn.welcome):
                        raise CacheError("the sidecar hashes keys in a way that this client does not know")
                    tries = 0
                except Exception:  # whatever it is: nothing is served until the sidecar is followed again
                    self._near.end()
                    place.lost()
                    await asyncio.sleep(_feed.pause(tries))
                    tries += 1
        finally:
            self._near.end()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        self.link.close()


async def ask(link: Link, place: Place, timeout: float) -> Tuple[Dict[str, Any], Greeted]:
    """Ask for the events that follow a place."""
    conn = await link.get(timeout)
    end = place.call(conn).tail(int((place.wait + timeout) * 1000), 0)
    try:
        message = await conn.call(end, place.wait + timeout)
        return place.take(_wire.decode(message[4:])), conn
    except Malformed as e:
        conn.end(e)
        raise


class AsyncClient(View):
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
        state = _Shared(settings, on_call)
        self._open(state, None)
        _fork.remember(state)
        weakref.finalize(self._keeper, state.abandon)

    def _open(self, state: _Shared, namespace: Optional[str], keeper: Optional[_Keeper] = None) -> None:
        self._view(state, namespace)
        self._keeper = keeper or _Keeper()
        self._state = state
        self._link = state.link

    def in_namespace(self: _C, name: str) -> _C:
        """Return a view of the client with another namespace. Closing either one closes both."""
        view = object.__new__(type(self))
        view._open(self._state, name, self._keeper)
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

    # -- one call

    async def _call(
        self, call: Call, timeout: Optional[float] = None, on: Optional[Greeted] = None, began: float = 0.0,
        attempt: int = 0,
    ) -> Tuple[List[Any], Greeted]:
        loop = asyncio.get_running_loop()
        if loop is not self._state.loop:
            self._state.bind(loop)
        limit = self._timeout if timeout is None else seconds(timeout)
        began = began or monotonic()
        self._before(call)
        try:
            late = self._late_token if call.op == _wire.LEASE else None
            message, conn = await self._link.do(call, limit, on, late, began, attempt)
            answer = _decode(message, conn)
            self._answered(call, answer, began)
        except BaseException as e:
            self._failed(call, e, began, limit)
            raise
        return answer, conn

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
                    near.hits += 1
                    kept.visited = True
                    value = kept.value
                    return value if value is not None else near.value(kept)
        elif timeout is None and not stale_ok and not no_load and 0 < len(k) < 256 and self._memory.region is None:
            conn = self._link.live
            if conn is not None and conn.alive and self._state.loop is asyncio.get_running_loop():
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
                    item = self._item(k, answer, conn)
                    return default if item is None else item.value
                return self._value(k, message, conn, default)
        item = await self.get_item(key, stale_ok=stale_ok, no_load=no_load, timeout=timeout)
        return default if item is None else item.value

    def _value(self, k: bytes, message: bytes, conn: Greeted, default: Any) -> Any:
        """Return the value of an answer to GET, or default."""
        if len(message) > 13 and message[10] == 0 and message[11] == 0xC4 and message[5] == 0xCE:
            # OK, and a value of less than 256 bytes; any other answer is for the decoder
            end = 13 + message[12]
            flags = message[end] if end < len(message) else -1
            if flags == 16:
                try:
                    return message[13:end].decode()
                except UnicodeDecodeError:
                    pass
            elif flags == 0:
                return message[13:end]
        item = self._item(k, _decode(message, conn), conn)
        return default if item is None else item.value

    def _items(self, answer: List[Any], n: int, conn: Greeted) -> List[List[Any]]:
        """Return the items of an answer to MGET, one for each key."""
        items = _calls.items(answer)
        if len(items) != n:
            error = Malformed(f"the sidecar's answer to MGET has {len(items)} items for {n} keys")
            conn.end(error)
            raise error
        return items

    def _item(self, key: bytes, answer: List[Any], conn: Greeted) -> Optional[Item]:
        try:
            return _calls.item(key, answer)
        except Malformed as e:
            conn.end(e)
            raise

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
        item = self._item(k, answer, conn)
        if item is None:
            return answer[2] if len(answer) > 2 and type(answer[2]) is int else 0
        self._keep(k, asked, conn.welcome.epoch, answer)
        return item

    def _near_by(self, k: bytes) -> Union[Item, int, None]:
        """Return what this process or the shared memory has: an item, or ABSENT as the reason of a miss."""
        began = monotonic() if self._hook is not None else 0.0
        item = self._local(k)
        found: Union[Item, int, None] = item
        if item is None:
            seen = self._shared(k)
            if seen is None:
                return None
            keys = self._memory.sample(k)
            if keys:
                self._report(keys)
            found = self._shared_item(k, seen) if seen else _wire.ABSENT
        if self._hook is not None:
            source = found.source if isinstance(found, Item) else "shared"
            metrics.tell(self._hook, "get", "ok" if isinstance(found, Item) else "miss", monotonic() - began, source)
        return found

    def _report(self, keys: Any) -> None:
        conn = self._link.live
        if conn is not None and self._state.loop is asyncio.get_running_loop():
            conn.post(_calls.touched(self._ns, keys).tail(int(self._timeout * 1000), 0))

    def _asked(self) -> Any:
        if self._near is not None and self._state.follower is None:
            self._state.follow()
        return self._ask()

    async def get_many(
        self, keys: Iterable[Key], *, fresh: bool = False, stale_ok: bool = False, no_load: bool = False,
        timeout: Optional[float] = None,
    ) -> Dict[Key, Any]:
        """Return the values of the keys that have one."""
        found = await self.get_items(keys, fresh=fresh, stale_ok=stale_ok, no_load=no_load, timeout=timeout)
        return {key: item.value for key, item in found.items()}

    async def get_items(
        self, keys: Iterable[Key], *, fresh: bool = False, stale_ok: bool = False, no_load: bool = False,
        timeout: Optional[float] = None,
    ) -> Dict[Key, Item]:
        """Return the values of the keys that have one, as they are stored, and what is known about them."""
        given: Dict[bytes, Key] = {_calls.key_bytes(key): key for key in keys}
        found: Dict[Key, Item] = {}
        left: List[bytes] = []
        for k, key in given.items():
            local = None if fresh else self._near_by(k)
            if local is None:
                left.append(k)
            elif isinstance(local, Item):
                found[key] = local
        while left:
            some = left[: _wire.MAX_KEYS]
            asked = self._asked()
            call = _calls.mget(self._ns, some, self._options(fresh, stale_ok, no_load))
            answer, conn = await self._call(call, timeout)
            n = 0
            for k, one in zip(some, self._items(answer, len(some), conn)):
                if one[1] == _wire.BUSY and n:  # not the first one, so that this ends
                    break  # the answer would be too long: the rest is asked for again
                item = self._item(k, one, conn)
                if item is not None:
                    found[given[k]] = item
                    self._keep(k, asked, conn.welcome.epoch, one)
                n += 1
            left = left[n:]
        return found

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

    async def _store(
        self, key: Key, value: Any, ttl: TTL, flags: int, mode: int, compare: int, ack_all: bool,
        timeout: Optional[float],
    ) -> Optional[int]:
        call = self._store_call(key, value, ttl, flags, mode, compare, ack_all, self._link.max_value)
        answer, _ = await self._call(call, timeout)
        return _calls.stored(answer)

    async def set_many(
        self, values: Mapping[Key, Any], *, ttl: TTL = None, flags: int = 0, ack_all: bool = False,
        timeout: Optional[float] = None,
    ) -> Dict[Key, int]:
        """Store values. Return their versions. After an error some of them may be stored."""
        most = self._link.max_value
        calls = [
            self._store_call(key, value, ttl, flags, _wire.MODE_SET, 0, ack_all, most) for key, value in values.items()
        ]
        versions: List[int] = []
        for at in range(0, len(calls), _BATCH):
            some = calls[at : at + _BATCH]
            answers = await asyncio.gather(*[self._call(call, timeout) for call in some], return_exceptions=True)
            for answer in answers:
                if isinstance(answer, BaseException):
                    raise answer
                versions.append(cast(int, _calls.stored(answer[0])))
        return dict(zip(values, versions))

    async def delete(
        self, key: Key, *, soft: bool = False, hold: Optional[float] = None, ack_all: bool = False,
        timeout: Optional[float] = None,
    ) -> bool:
        """Remove a key's value from the whole cluster. Return whether it had one.

        soft keeps the value for reads with stale_ok. hold is the time, in seconds, for which loaded values are not
        kept, for an origin whose replicas lag.
        """
        return (await self._delete([_calls.key_bytes(key)], soft, hold, ack_all, timeout))[0]

    async def delete_many(
        self, keys: Iterable[Key], *, soft: bool = False, hold: Optional[float] = None, ack_all: bool = False,
        timeout: Optional[float] = None,
    ) -> Dict[Key, bool]:
        """Remove the values of keys from the whole cluster. Return which of them had one."""
        given = list(keys)
        had: List[bool] = []
        for page in pages([_calls.key_bytes(key) for key in given]):
            had += await self._delete(page, soft, hold, ack_all, timeout)
        return dict(zip(given, had))

    async def _delete(
        self, keys: List[bytes], soft: bool, hold: Optional[float], ack_all: bool, timeout: Optional[float]
    ) -> List[bool]:
        answer, _ = await self._call(_calls.delete(self._ns, keys, soft, hold, ack_all), timeout)
        return _calls.deleted(answer, len(keys))

    async def touch(
        self, key: Key, ttl: TTL = None, *, ack_all: bool = False, timeout: Optional[float] = None
    ) -> bool:
        """Give a key's value a new ttl. Return whether the key has a value."""
        answer, _ = await self._call(_calls.touch(self._ns, _calls.key_bytes(key), ttl, ack_all), timeout)
        return _calls.present(answer)

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
        load = _Load(self, k, loader, ttl, _encode.app_flags(flags), _calls.read_options(fresh, stale_ok, False))
        return await load.run(alone)

    async def _lease(self, k: bytes, options: int) -> Tuple[List[Any], Greeted]:
        asked = self._asked()
        if asked is not None:
            options |= _wire.ATTEST
        answer, conn = await self._call(_calls.lease(self._ns, k, options))
        if answer[1] == _wire.LEASED:
            conn.tokens += 1
        elif answer[1] == _wire.OK:
            self._keep(k, asked, conn.welcome.epoch, answer)
        return answer, conn

    def _late_token(self, call: Call, conn: Any, message: bytes) -> None:
        """Give a token back that came after its caller had left."""
        answer = _wire.decode(message[4:])
        if answer[1] == _wire.LEASED:
            ns, key, token = call.elements[0], call.elements[1], _wire.data(answer, 2)
            conn.post(_calls.abandon_encoded(ns, key, token).tail(int(self._timeout * 1000), 0))

    def cached(
        self, function: Optional[_F] = None, *, ttl: TTL = None, key: Optional[Callable[..., Key]] = None,
        flags: int = 0, stale_ok: bool = False,
    ) -> Any:
        """Decorate a coroutine function: its results are kept, and made once in the cluster. See decorators.cached."""
        return cached(self, function, ttl=ttl, key=key, flags=flags, stale_ok=stale_ok)

    # -- the rest

    async def flush(self, *, all: bool = False, cluster: bool = False, timeout: Optional[float] = None) -> None:
        """Empty the namespace on this host; with all every namespace, with cluster on every host."""
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
        link = Link(self._core.settings)
        place = Place(self._ns, _wire.ALL if all else 0, beat)
        tries = 0
        try:
            while not self._link.closed:
                try:
                    told, conn = await ask(link, place, self._timeout)
                    tries = 0
                except _feed.FINAL:
                    raise
                except (CacheError, NotSent, Broken):
                    place.lost()
                    await asyncio.sleep(_feed.pause(tries))
                    tries += 1
                    continue
                for event in _feed.public(told, conn.welcome, self.namespace, names):
                    yield event
            raise ClosedError("the client was closed")
        finally:
            link.close()


class _Keeper:
    """Lives as long as any view of a client."""


def _decode(message: bytes, conn: Greeted) -> List[Any]:
    try:
        return _wire.decode(message[4:])
    except Malformed as e:
        conn.end(e)
        raise


class _Load:
    """A get_or_set that has found nothing."""

    def __init__(
        self, client: AsyncClient, key: bytes, loader: Callable[[], Any], ttl: TTL, flags: int, options: int
    ) -> None:
        self._client, self._key, self._loader, self._ttl = client, key, loader, ttl
        self._flags, self._options = flags, options
        self._loads = client._state.loads
        self._at = (client._name, key, options)
        self._passed = False
        self._value: Any = None  # the loader's own, for the first caller

    async def run(self, alone: bool) -> Any:
        """Return the value, loaded by this call or by another."""
        if self._client._link.closed:
            raise ClosedError("the client was closed")
        while True:
            flight, first, begins = self._loads.join(self._at, _Flight(alone))
            if first:
                flight.load = self
                if begins:
                    self._begin(flight)
            await self._wait(flight)
            if flight.again and not self._client._link.closed:
                continue
            if flight.error is not None:
                raise flight.error
            if flight.again:
                raise ClosedError("the client was closed")
            if first and self._value is not None:
                return self._value
            return None if flight.found is None else _encode.decode(self._key, *flight.found)

    async def _wait(self, flight: _Flight) -> None:
        future = asyncio.get_running_loop().create_future()
        flight.waiters.append(future)
        try:
            await future
        except BaseException:
            if self._loads.leave(flight):
                if flight.task is not None:
                    flight.left = True
                    flight.task.cancel()
                elif self._loads.withdraw(self._at, flight):
                    self._loads.over()
            raise

    def _begin(self, flight: _Flight) -> None:
        flight.task = task = asyncio.ensure_future(self._fly(flight))
        self._client._state.tasks.add(task)
        task.add_done_callback(self._client._state.tasks.discard)
        task.add_done_callback(lambda _: self._land(flight))

    def _land(self, flight: _Flight) -> None:
        """The flight is over, also if its task was cancelled before it ran."""
        if not self._passed:
            self._pass()
        self._loads.over()
        task = flight.task
        if task is not None and (task.cancelled() or task.exception() is not None):
            flight.again = True
        for waiter in flight.waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _fly(self, flight: _Flight) -> None:
        """Carry a flight out, for all its callers."""
        try:
            await self._get(flight)
        except asyncio.CancelledError as e:
            if flight.left or self._client._link.closed:
                raise
            flight.error = e  # the loader's own
        except Exception as e:
            flight.error = e

    def _pass(self) -> None:
        self._passed = True
        following = self._loads.passes(self._at)
        if following is not None:
            following.load._begin(following)

    async def _get(self, flight: _Flight) -> None:
        if flight.alone:
            return await self._load(flight)
        try:
            answer, conn = await self._ask()
        except FAIL_OPEN:
            if not self._client._core.settings.fail_open:
                raise
            return await self._load(flight)
        if answer[1] == _wire.LEASED:
            return await self._fill(flight, _wire.data(answer, 2), conn)
        item = _calls.item(self._key, answer)
        if item is not None:
            flight.found = item.data, item.flags
        elif answer[2:3] != [_wire.ABSENT]:
            await self._load(flight)

    async def _ask(self) -> Tuple[List[Any], Greeted]:
        """Ask until the answer is other than "another caller still loads": that sidecar is alive."""
        settings = self._client._core.settings
        for _ in range(max(1, int(settings.wait_timeout / settings.timeout))):
            answer, conn = await self._client._lease(self._key, self._options)
            if answer[1] != _wire.TIMEOUT:
                break
        _calls.check(answer)
        return answer, conn

    async def _load(self, flight: _Flight) -> None:
        value = self._loader()
        if inspect.isawaitable(value):
            try:
                value = await asyncio.wait_for(value, self._client._core.settings.load_timeout)
            except asyncio.TimeoutError as e:
                if isinstance(e, CacheError):
                    raise
                raise TimeoutError(f"the loader of {self._key!r} took longer than load_timeout") from e
        data, mark = _encode.encode(value)
        flight.found = data, mark | self._flags
        self._value = value

    async def _fill(self, flight: _Flight, token: bytes, conn: Greeted) -> None:
        """Load the value and give it to all who wait for it. Give the token back after any failure."""
        client = self._client
        filled = False
        try:
            self._pass()
            await self._load(flight)
            assert flight.found is not None
            data, flags = flight.found
            if len(data) <= (conn.welcome.max_value or len(data)):
                try:
                    answer, _ = await client._call(
                        _calls.fill(client._ns, self._key, token, data, flags, self._ttl), None, conn
                    )
                    filled = not _calls.nothing_done(answer)
                except TimeoutError:
                    filled = True  # perhaps
                except CacheError:
                    pass
        except Exception:
            if not filled:
                filled = True
                await self._give_back(token, conn)
            raise
        else:
            if not filled:
                filled = True
                await self._give_back(token, conn)
        finally:
            if not filled:  # interrupted: there is no time to wait
                conn.post(_calls.abandon(client._ns, self._key, token).tail(int(client._timeout * 1000), 0))
            conn.tokens -= 1

    async def _give_back(self, token: bytes, conn: Greeted) -> None:
        """Give the token back. If that fails, its time ends, or its connection has ended."""
        client = self._client
        try:
            await client._call(_calls.abandon(client._ns, self._key, token), None, conn)
        except CacheError:
            pass
