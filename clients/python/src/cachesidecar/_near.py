"""The near cache: values that the sidecar has returned, kept in this process. It is pure: the time is given to it.

It follows the rules of "Keeping values" in docs/PROTOCOL.md. An event removes what it outdates at once, and the lease
is extended only after that. So a read needs no hash and no lock: it reads the lease, then finds the value, then reads
the clock. A value that is still there was current up to the lease, and the lease says how long ago that was.

The ledger refuses answers that come after the event that outdates them. It is that of invalidation/ledger.go.

A destructor or a signal handler may call the client while its thread has the lock. What it would keep is not kept,
and after a write of its own the cache begins anew.
"""

from __future__ import annotations

import sys
from array import array
from collections import OrderedDict, deque
from struct import Struct
from typing import Any, Callable, Deque, Dict, List, Mapping, NamedTuple, Optional, Tuple

from . import _encode, _greenlets, _hash
from ._hello import Welcome
from ._hits import Tally
from ._nested import Nesting

_SLOTS = 1 << 16
_PARTITIONS = 1 << 14
_DROPS = 1 << 12
_MAX_NAMESPACES = 256
_MAX_VALUE = 64 << 10  # bytes
_MAX_POLLS = 8
#: The memory of one value beside its key and its bytes, in bytes: the objects and their places in two maps.
OVERHEAD = 600

_each_event = Struct(">BQQ").iter_unpack
_CHANGED, _RAISED, _FLUSHED = 0, 1, 2


class NearStats(NamedTuple):
    """The statistics of a near cache."""

    following: bool  # whether the sidecar is followed; if not, nothing is served
    hits: int
    misses: int
    entries: int
    bytes: int
    limit: int  # bytes
    events: int
    resets: int


class Kept:
    """A value."""

    __slots__ = ("space", "key", "hash", "value", "data", "flags", "version", "ends", "as_of", "since", "visited")

    space: "Space"
    key: bytes
    hash: int
    value: Any  # decoded, unless each reader needs its own
    data: bytes
    flags: int
    version: int
    ends: int  # of the boot clock, ns; 0: never
    as_of: int  # the version as of which the owner has attested the value
    since: int  # when it was asked for
    visited: bool  # since it was last at the end of the queue

    @property
    def cost(self) -> int:
        return len(self.key) + 2 * len(self.data) + OVERHEAD


class Space:
    """A namespace."""

    __slots__ = ("name", "seed", "flushed", "values", "tally")

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.seed = 0  # of its keys' hashes; valid once there is a stream
        self.flushed = 0  # the version of the last flush
        self.values: Dict[bytes, Kept] = {}
        self.tally: Optional[Tally] = None  # of its hits, once there is one


class Asked(NamedTuple):
    """When a read was sent, and which stream was followed then."""

    at: int
    stream: int


class Near:
    """The values, and what is known about their changes. Reads need no lock."""

    def __init__(self, limit: int, bound: float, nesting: Optional[Nesting] = None) -> None:
        self.limit = limit
        self.bound_ns = int(bound * 1e9)
        self.lease = 0  # of the boot clock, ns: all events up to it are applied; 0: nothing is served
        self.stream = 0  # the number of the stream that is followed; 0: none
        self.misses = self.events = self.resets = self.bytes = 0
        self._streams = 0
        self._epoch = -1  # of the sidecar's process that is followed
        self._seed = 0
        self._place = 0  # in the stream
        self._polls: Deque[Tuple[int, int]] = deque()  # answered, and not covered: when sent, and the head
        self._behind_ns = 0
        self._nesting = nesting or Nesting()
        self._lock = _greenlets.mutex()
        self._busy = False  # with the lock held: a call that finds it so is within other work of its thread
        self._overtaken = False  # by a write that was not noted
        self._spaces: Dict[bytes, Space] = {}
        self._queue: "OrderedDict[int, Kept]" = OrderedDict()  # by hash, in the order of eviction
        self._hash, self._version, self._floor = (array("Q", bytes(8 * _SLOTS)) for _ in range(3))
        self._raised = array("q", bytes(8 * _PARTITIONS))  # boot clock: what was asked for until then is outdated
        self._dropped = array("q", bytes(8 * _DROPS))  # likewise, by hash, after writes of unknown outcome

    def space(self, name: bytes) -> Optional[Space]:
        """Return the space of a namespace; None: there are too many, and none of its values is kept."""
        if not self._lock.acquire(not sys.is_finalizing()):
            return None
        try:
            space = self._spaces.get(name)
            if space is None and len(self._spaces) < _MAX_NAMESPACES:
                space = Space(name)
                space.seed = _hash.namespace_seed(name, self._seed)
                space = self._spaces.setdefault(name, space)  # a destructor's call may have made it meanwhile
            return space
        finally:
            self._lock.release()

    def may_wait(self) -> bool:
        """Report whether this thread may wait for another one that needs the lock."""
        return self._nesting.may_wait()

    def _do(self, work: Callable[..., bool], *args: Any) -> bool:
        """Do some work under the lock. Return False if this thread is within other work, or what the work returns."""
        if not sys.is_finalizing():
            with self._lock:
                return self._do_alone(work, args)
        if not self._lock.acquire(False):  # a thread that has it may have been stopped for ever
            return False
        try:
            return self._do_alone(work, args)
        finally:
            self._lock.release()

    def _do_alone(self, work: Callable[..., bool], args: Tuple[Any, ...]) -> bool:
        if self._busy:
            return False
        try:
            self._busy = True
            return self._nesting.run(work, *args)
        finally:
            while self._overtaken:
                self._overtaken = False
                self._end()
            self._busy = False

    def _overtake(self) -> None:
        """Begin anew after a write that was not noted. Nothing is served from now on."""
        self._overtaken = True
        self.lease = self.stream = 0

    # -- reads

    def value(self, kept: Kept) -> Any:
        """Return the value for one reader."""
        if not kept.visited:
            kept.visited = True
        return kept.value if kept.value is not None else _encode.decode(kept.key, kept.data, kept.flags)

    def find(self, space: Space, key: bytes, clock: Any) -> Optional[Kept]:
        """Return what may be served. The order is essential: the lease, the value, the clock."""
        lease = self.lease
        kept = space.values.get(key)
        if kept is None:
            self.misses += 1
            return None
        now = clock()
        if now - lease >= self.bound_ns or 0 < kept.ends <= now:
            return None
        return kept

    def age(self, now: int) -> float:
        return (max(0, now - self.lease) + self._behind_ns) / 1e9

    def ask(self, now: int) -> Optional[Asked]:
        """Prepare a read that is about to be sent. None: its answer is not kept."""
        return Asked(now, self.stream) if self.stream else None

    def keep(
        self, space: Space, key: bytes, asked: Asked, epoch: int, data: bytes, flags: int, version: int, ttl_ms: int,
        as_of: int,
    ) -> None:
        """Keep an attested answer, if this client will learn when it is outdated."""
        if asked.stream != self.stream or len(data) > min(_MAX_VALUE, self.limit // 100):
            return
        kept = Kept()
        kept.space, kept.key, kept.hash = space, key, _hash.key_hash(key, space.seed)
        kept.value = None
        if _encode.shared(data, flags):
            try:
                kept.value = _encode.decode(key, data, flags)
            except Exception:
                return
        kept.data, kept.flags, kept.version, kept.as_of, kept.since = data, flags, version, as_of, asked.at
        kept.ends = asked.at + ttl_ms * 1_000_000 - 1 if ttl_ms else 0
        kept.visited = False
        self._do(self._keep, kept, asked, epoch)

    def _keep(self, kept: Kept, asked: Asked, epoch: int) -> bool:
        if asked.stream == self.stream and epoch == self._epoch and self._admits(kept):
            self._put(kept)
        return True

    def _admits(self, kept: Kept) -> bool:
        hash = kept.hash
        if (
            kept.version < kept.space.flushed or kept.since <= self._raised[hash >> 50]
            or kept.since <= self._dropped[hash % _DROPS]
        ):
            return False
        slot = hash % _SLOTS
        noted = self._version[slot] if self._hash[slot] == hash else self._floor[slot]
        return kept.as_of >= noted

    def _put(self, kept: Kept) -> None:
        old = self._queue.get(kept.hash)
        if old is not None:
            if old.space is kept.space and old.key == kept.key and old.as_of > kept.as_of:
                return
            self._remove(old)
        self._queue[kept.hash] = kept
        kept.space.values[kept.key] = kept
        self.bytes += kept.cost
        while self.bytes > self.limit:
            _, oldest = next(iter(self._queue.items()))
            if oldest.visited:  # read since: it goes to the end
                oldest.visited = False
                self._queue.move_to_end(oldest.hash)
            else:
                self._remove(oldest)

    def _remove(self, kept: Kept) -> None:
        del self._queue[kept.hash]
        if kept.space.values.get(kept.key) is kept:
            kept.space.values.pop(kept.key, None)  # a write that cannot wait may take it, too
        self.bytes -= kept.cost

    # -- writes

    def wrote(self, space: Space, key: bytes, version: int, now: int) -> None:
        """Note a write of this client, before the application hears of it. Version 0: it is not known."""
        if self.stream:  # else nothing is kept, and what is asked for from now on is newer
            if self._do(self._wrote, _hash.key_hash(key, space.seed), version, now):
                return
            self._overtake()
        space.values.pop(key, None)  # work that this thread is within may extend the lease before it begins anew

    def _wrote(self, hash: int, version: int, now: int) -> bool:
        if version:
            self._note(hash, version)
            return True
        self._dropped[hash % _DROPS] = now
        kept = self._queue.get(hash)
        if kept is not None:
            self._remove(kept)
        return True

    def drop(self, now: int) -> None:
        """Outdate everything that was asked for until now."""
        if not self._do(self._drop, now):
            self._overtake()
            for space in list(self._spaces.values()):
                space.values.clear()

    def _drop(self, now: int) -> bool:
        for partition in range(_PARTITIONS):
            self._raised[partition] = now
        self._clear()
        return True

    def _clear(self) -> None:
        self._queue.clear()
        for space in list(self._spaces.values()):
            space.values.clear()
        self.bytes = 0

    # -- the stream

    def apply(self, sent: int, now: int, watched: Mapping[str, Any], welcome: Welcome) -> bool:
        """Apply an answer to WATCH that was asked for at sent. Return False if it cannot be followed."""
        return self._do(self._apply, sent, now, watched, welcome)

    def _apply(self, sent: int, now: int, watched: Mapping[str, Any], welcome: Welcome) -> bool:
        if watched["reset"] or not self.stream:
            return self._begin(sent, watched, welcome)
        for event in events(watched):
            if event is None:  # of a later version, whose meaning is not known
                self._drop(now)
            else:
                self._event(event, now)
        if len(self._polls) < _MAX_POLLS:
            self._polls.append((sent, int(watched["head"])))
        if watched["after"] == self._place and watched["seq"] >= self._place:
            self._place = int(watched["seq"])
            self._behind_ns = int(watched["behind_ms"]) * 1_000_000
            self._cover()
        return True

    def _begin(self, sent: int, watched: Mapping[str, Any], welcome: Welcome) -> bool:
        self._end()
        if welcome.hash.get("name") != "xxh3" or welcome.hash.get("partitions") != _PARTITIONS:
            return False
        self.resets += 1
        self._streams += 1
        self._seed, self._epoch = int(welcome.hash["seed"]), welcome.epoch
        for space in list(self._spaces.values()):
            space.seed = _hash.namespace_seed(space.name, self._seed)
        self._place, self._behind_ns = int(watched["seq"]), int(watched["behind_ms"]) * 1_000_000
        self._polls.append((sent, int(watched["head"])))
        self._cover()
        self.stream = self._streams
        return True

    def _cover(self) -> None:
        while self._polls and self._polls[0][1] <= self._place:
            self.lease = max(self.lease, self._polls.popleft()[0])

    def end(self) -> None:
        """The connection broke: everything is dropped."""
        if not self._do(self._end):
            self._overtake()

    def forked(self) -> None:
        """Begin anew in a forked child, where the lock may be held for ever."""
        self._lock = _greenlets.mutex()
        self._busy = False
        self._end()

    def _end(self) -> bool:
        self.stream = self.lease = 0
        self._polls.clear()
        self._clear()
        return True

    def _event(self, event: "Event", now: int) -> None:
        self.events += 1
        if event.kind == _CHANGED:
            self._note(event.hash, event.version)
        elif event.kind == _RAISED:
            raised = partitions(event.partitions)
            for partition in raised:
                self._raised[partition] = now
            gone = frozenset(raised)
            for kept in [kept for kept in self._queue.values() if kept.hash >> 50 in gone]:
                self._remove(kept)
        else:
            for name, space in self._spaces.items():
                if event.namespace in (b"", name):
                    space.flushed = max(space.flushed, event.version)
                    for kept in [kept for kept in list(space.values.values()) if kept.version < event.version]:
                        self._remove(kept)

    def _note(self, hash: int, version: int) -> None:
        """Note a change in the ledger. Two keys that share a slot cost misses, never a wrong value."""
        slot = hash % _SLOTS
        old = self._version[slot]
        if self._hash[slot] == hash:
            self._version[slot] = max(old, version)
        else:
            floor = self._floor[slot] = max(self._floor[slot], old)
            self._hash[slot] = hash
            self._version[slot] = max(floor, version)
        kept = self._queue.get(hash)
        if kept is not None and kept.as_of < version:
            self._remove(kept)

    def stats(self, hits: int) -> NearStats:
        return NearStats(
            self.stream != 0, hits, self.misses, len(self._queue), self.bytes, self.limit, self.events, self.resets
        )


class Event(NamedTuple):
    """An event of the stream as it is on the wire."""

    kind: int
    hash: int
    version: int
    partitions: bytes
    namespace: bytes


def events(watched: Mapping[str, Any]) -> List[Optional[Event]]:
    """Return the events of an answer to WATCH. None stands for one whose kind is not known."""
    packed, details = watched["events"][0] or b"", watched["events"][1] or []
    found: List[Optional[Event]] = []
    at = 0
    for kind, hash, version in _each_event(packed):
        bits, name = b"", b""
        if kind in (_RAISED, _FLUSHED):
            bits, name = details[at][0] or b"", (details[at][1] or "").encode()
            at += 1
        found.append(Event(kind, hash, version, bits, name) if kind <= _FLUSHED else None)
    return found


def partitions(bits: bytes) -> List[int]:
    """Return the partitions of a bit set."""
    return [8 * at + bit for at, byte in enumerate(bits) for bit in range(8) if byte >> bit & 1]
