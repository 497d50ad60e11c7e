"""What a client and its views share, whether sync or not: what is done before and after each call. It does no I/O."""

from __future__ import annotations

from typing import Any, Iterable, List, Mapping, NoReturn, Optional, Sequence, Tuple, Union

from . import _answers, _calls, _clock, _encode, _wire, metrics
from ._answers import Greeted
from ._batch import Batch
from ._calls import Call, Key
from ._clock import monotonic
from ._hits import Hits, Tally
from ._item import Item
from ._memory import Attach, Memory
from ._near import Asked, Near, NearStats, Space
from ._nested import Nesting
from ._settings import TTL, Settings, seconds, ttl_ms
from .errors import (
    NOTHING_DONE, BusyError, CacheError, ConnectionError, Malformed, TimeoutError, TooLargeError, UnsupportedError,
)

_BATCH = 256  # requests that are sent together

#: The errors after which get_or_set loads all the same, if fail_open.
FAIL_OPEN = (ConnectionError, BusyError, TimeoutError, UnsupportedError)


def attach_of(settings: Settings) -> Optional[Attach]:
    """Return the function that maps the shared memory, where there is any."""
    if not settings.shared_memory:
        return None
    try:
        from ._attach import attach
    except ImportError:
        return None
    return attach


class Core:
    """The state that all views of a client share."""

    def __init__(self, settings: Settings, on_call: Optional[metrics.OnCall]) -> None:
        self.settings = settings
        self.on_call = on_call
        self.near_feed: Any = None  # follows the sidecar for the near cache, once that is asked
        self.nesting = Nesting()
        self.near: Optional[Near] = None
        if settings.near_cache:
            self.near = Near(settings.near_cache, settings.near_bound, self.nesting)
        hello = {"v": _wire.VERSIONS, "client": settings.name or None, "token": None, "ns": settings.namespace}
        self.memory = Memory(attach_of(settings), hello, settings.connect_timeout)
        self.hits = Hits()
        self._timed = False  # what is pending there is reported without another read

    def noted(self, tally: Tally, key: bytes) -> None:
        """Note a read that this process has answered itself, if its tally says so."""
        tally.noted(key)
        if self.hits.begins():
            self._timed = self.later()
        elif not self._timed and self.hits.late():
            self.report()

    def later(self) -> bool:
        """Report in a while. Return False if only another read can do so."""
        raise NotImplementedError

    def report(self) -> None:
        """Report what was not reported, without waiting. It is lost if that fails."""
        raise NotImplementedError

    def follow(self) -> None:
        """Start to follow the sidecar for the near cache, if that is not done yet."""
        raise NotImplementedError

    def near_stats(self) -> NearStats:
        if self.near is None:
            return NearStats(False, 0, 0, 0, 0, 0, 0, 0)
        return self.near.stats(self.hits.count(True))


class Lifetime:
    """Lives as long as any view of a client: its end closes what the client has open."""


class View:
    """A namespace of a client: the parts of its calls that do no I/O."""

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} cannot be pickled or copied: its connection and locks are of this process. Make a "
            "client in each process, such as at the top of a module, and pass on what it is made of (socket, namespace)"
        )

    def _view(self, core: Core, namespace: Optional[str]) -> None:
        self._core = core
        self._hook = core.on_call
        self._timeout = core.settings.timeout
        #: The namespace of all calls.
        self.namespace = core.settings.namespace if namespace is None else namespace
        self._ns = _wire.namespace(namespace)
        self._name = self.namespace.encode()
        self._memory = core.memory
        self._near = core.near
        self._tally: Optional[Tally] = None  # of the reads of the shared memory, once there is one
        self._space: Optional[Space] = core.near.space(self._name) if core.near is not None else None
        # GET's elements up to the key, with the default timeout.
        self._get_head = _wire.uint(_wire.GET) + _wire.uint(int(self._timeout * 1000)) + self._ns

    # -- reads

    def _local(self, key: bytes) -> Optional[Item]:
        """Return what the near cache has of a key."""
        if self._space is not None and self._near is not None:
            kept = self._near.find(self._space, key, _clock.boot_ns)
            if kept is not None:
                kept.visited = True
                self._count(self._space.tally or self._near_tally(self._space), key)
                now = _clock.boot_ns()
                ttl = max(0.001, (kept.ends - now) / 1e9) if kept.ends else None
                return Item(key, kept.data, kept.flags, kept.version, ttl, "near", self._near.age(now), False)
        return None

    def _shared_tally(self) -> Tally:
        self._tally = self._core.hits.tally(self._name, False)
        return self._tally

    def _near_tally(self, space: Space) -> Tally:
        space.tally = self._core.hits.tally(space.name, True)
        return space.tally

    def _count(self, tally: Tally, key: bytes) -> None:
        tally.reads += 1
        if tally.reads >= tally.due:
            self._core.noted(tally, key)

    def _near_by(self, key: bytes) -> Union[Item, int, None]:
        """Return what this process or the shared memory has: an item, or ABSENT as the reason of a miss."""
        began = monotonic() if self._hook is not None else 0.0
        found: Union[Item, int, None] = self._local(key)
        if found is None:
            seen = self._memory.get(self._name, key)
            if seen is None:
                return None
            tally = self._tally or self._shared_tally()
            if not seen:
                tally.absent += 1
            self._count(tally, key)
            found = self._shared_item(key, seen) if seen else _wire.ABSENT
        if self._hook is not None:
            source = found.source if isinstance(found, Item) else "shared"
            metrics.tell(self._hook, "get", "ok" if isinstance(found, Item) else "miss", monotonic() - began, source)
        return found

    def _shared_item(self, key: bytes, found: Any) -> Item:
        data, flags, version, ttl = found
        return Item(key, data, flags, version, ttl / 1000 if ttl else None, "shared", 0.0, False)

    def _limit(self, timeout: Optional[float]) -> float:
        """Return the time limit of a call."""
        return self._timeout if timeout is None else seconds(timeout)

    def _options(self, fresh: bool, stale_ok: bool, no_load: bool) -> int:
        options = _calls.read_options(fresh, stale_ok, no_load)
        if self._memory.region is not None:
            options |= _wire.SHARE
        if self._near is not None and self._near.stream:
            options |= _wire.ATTEST
        return options

    def _asked(self) -> Optional[Asked]:
        """Return what _keep wants to know of a request that is sent now."""
        if self._space is None or self._near is None:
            return None
        if self._core.near_feed is None:
            self._core.follow()
        return self._near.ask(_clock.boot_ns())

    def _keep(self, key: bytes, asked: Optional[Asked], epoch: int, answer: Sequence[Any]) -> None:
        """Keep an answer to GET, if it may be kept."""
        if asked is None or self._near is None or self._space is None:
            return
        if answer[1] == _wire.OK and len(answer) > 10 and type(answer[8]) is int:
            self._near.keep(
                self._space, key, asked, epoch, _wire.data(answer, 2), _wire.field(answer, 3, int),
                _wire.field(answer, 4, int), _wire.field(answer, 5, int), answer[8],
            )

    def _given(self, keys: Iterable[Key], fresh: bool) -> Tuple[Batch, List[bytes]]:
        """Return a batch with the items that are near by, and the keys to ask for."""
        batch, left = Batch(keys), []
        for k in batch.given:
            local = None if fresh else self._near_by(k)
            if local is None:
                left.append(k)
            elif isinstance(local, Item):
                batch.done(k, local)
        return batch, left

    def _take(
        self, batch: Batch, keys: List[bytes], answer: List[Any], conn: Greeted, asked: Optional[Asked]
    ) -> List[bytes]:
        """Add the items of an answer to MGET to a batch. Return the keys that must be asked for again."""
        items = _answers.items(answer, len(keys), conn)
        again = [k for k, one in zip(keys, items) if one[1] == _wire.BUSY]  # mostly the answer would be too long
        if len(again) == len(keys):
            again = []  # asking again is no use
        for k, one in zip(keys, items):
            if one[1] == _wire.BUSY and again:
                continue
            try:
                item = _answers.item(k, one, conn)
            except Malformed:
                raise
            except CacheError as e:
                batch.failed([k], e)
                continue
            if item is not None:
                batch.done(k, item)
                self._keep(k, asked, conn.welcome.epoch, one)
        return again

    # -- around every call

    def _before(self, call: Call) -> None:
        if call.keys:
            self._memory.begin(call.keys)

    def _answered(self, call: Call, answer: Sequence[Any], began: float) -> None:
        """Note the result of a call before the application hears of it."""
        if call.keys:
            self._wrote(_calls.changed(call, answer))
            late = answer[1] not in (_wire.OK, _wire.EXISTS) and not _calls.nothing_done(answer)
            self._memory.end(call.keys, self._timeout if late else 0.0)
        elif call.op == _wire.FLUSH and self._near is not None:
            self._near.drop(_clock.boot_ns())
        if self._hook is not None:
            result, source = metrics.result(call.op, answer), metrics.source(call.op, answer)
            metrics.tell(self._hook, metrics.NAMES[call.op], result, monotonic() - began, source)

    def _failed(self, call: Call, error: BaseException, began: float, timeout: float) -> None:
        if call.keys:
            self._wrote(_calls.unknown(call, error))
            self._memory.end(call.keys, 0.0 if isinstance(error, NOTHING_DONE) else timeout)
        elif call.op == _wire.FLUSH and self._near is not None:
            self._near.drop(_clock.boot_ns())
        if self._hook is not None:
            metrics.tell(self._hook, metrics.NAMES[call.op], metrics.failure(error), monotonic() - began, "")

    def _wrote(self, changes: _calls.Changes) -> None:
        if self._near is not None and self._space is not None and changes:
            now = _clock.boot_ns()
            for key, version in changes:
                self._near.wrote(self._space, key, version, now)

    # -- writes

    def _store_call(
        self, key: Key, value: Any, ttl: TTL, flags: int, mode: int, compare: int, ack_all: bool, max_value: int,
        create: bool = False,
    ) -> Call:
        if mode >= _wire.MODE_APPEND and not isinstance(value, (str, bytes, bytearray, memoryview)):
            raise TypeError(f"a piece of type {type(value).__qualname__}: give str or bytes")
        data, mark = _encode.encode(value)
        if max_value and len(data) > max_value:
            raise TooLargeError(
                f"the value of {key!r} has {len(data)} bytes, the sidecar's max_value is {max_value}: split it, or "
                "raise max_value"
            )
        flags = mark | (_encode.app_flags(flags) if flags else 0)
        return _calls.store(self._ns, _calls.key_bytes(key), data, flags, ttl, mode, compare, ack_all, create)

    def _set_calls(
        self, values: Mapping[Key, Any], ttl: TTL, flags: int, ack_all: bool, max_value: int
    ) -> Tuple[Batch, List[List[Tuple[bytes, Call]]]]:
        """Return the calls that store values, with their keys, in parts that are sent together."""
        ttl_ms(ttl)
        _encode.app_flags(flags)
        batch = Batch(values)
        calls: List[Tuple[bytes, Call]] = []
        for k, given in batch.given.items():
            key = given[-1]
            try:
                call = self._store_call(key, values[key], ttl, flags, _wire.MODE_SET, 0, ack_all, max_value)
                calls.append((k, call))
            except CacheError as e:
                batch.failed([k], e)
        size = min(_BATCH, self._core.settings.max_in_flight)
        return batch, [calls[at : at + size] for at in range(0, len(calls), size)]

    # -- loads

    def _leased(self, key: bytes, asked: Optional[Asked], answer: List[Any], conn: Greeted) -> None:
        """Take note of an answer to LEASE."""
        if answer[1] == _wire.LEASED:
            conn.tokens.add(_wire.data(answer, 2))
        elif answer[1] == _wire.OK:
            self._keep(key, asked, conn.welcome.epoch, answer)

    def _late_token(self, call: Call, conn: Greeted, message: bytes) -> None:
        """Give a token back that came after its caller had left."""
        answer = _wire.decode(message[4:])
        if answer[1] == _wire.LEASED:
            ns, key, token = call.elements[0], call.elements[1], _wire.data(answer, 2)
            conn.post(_calls.abandon_encoded(ns, key, token).tail(int(self._timeout * 1000), 0))
