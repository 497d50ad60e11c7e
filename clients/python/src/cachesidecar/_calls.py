"""Calls as requests, and answers as results. It is pure.

A Call is all of a request but its id and its time, so that it can be sent again over another connection.
"""

from __future__ import annotations

from typing import Any, List, NamedTuple, Optional, Sequence, Tuple, Union

from . import _wire
from ._item import SOURCES, Item
from ._settings import TTL, milliseconds, ttl_ms
from .errors import BY_STATUS, NOTHING_DONE, BadRequestError, CacheError, InternalError, Malformed
from ._wire import NIL, array, binary, optional, sint, uint

Key = Union[str, bytes]


class Call(NamedTuple):
    """A request without its id and its time."""

    op: int
    #: The elements behind timeout_ms, encoded.
    elements: Tuple[bytes, ...]
    #: The keys that the call writes.
    keys: Tuple[bytes, ...] = ()
    #: Where until_ns belongs among the elements; 0: the call takes none.
    until_at: int = 0

    @property
    def reads(self) -> bool:
        """Whether the call may be repeated after its connection broke."""
        return self.op in _READS

    def tail(self, timeout_ms: int, until_ns: int) -> _wire.Tail:
        """Return the tail of the request. until_ns of 0 is left out."""
        elements = self.elements
        if until_ns and self.until_at:
            elements += (NIL,) * (self.until_at - len(elements)) + (uint(until_ns),)
        return _wire.tail(self.op, timeout_ms, *elements)


_READS = frozenset([_wire.GET, _wire.MGET, _wire.LEASE, _wire.PING, _wire.STATS, _wire.MEMBERS])


def key_bytes(key: Key) -> bytes:
    """Return the bytes of a key."""
    if type(key) is str:
        try:
            k = key.encode()
        except UnicodeEncodeError as e:
            raise BadRequestError(f"the key {key!r} is not Unicode ({e}): give bytes") from None
    elif isinstance(key, bytes):
        k = key
    elif isinstance(key, str):
        return key_bytes(str.__str__(key))
    else:
        raise TypeError(f"a key of type {type(key).__qualname__}: give str or bytes")
    if not 0 < len(k) <= _wire.MAX_KEY:
        raise BadRequestError(f"a key of {len(k)} bytes: give 1 to {_wire.MAX_KEY}; hash longer ones")
    return k


def read_options(fresh: bool, stale_ok: bool, no_load: bool) -> int:
    return (_wire.FRESH if fresh else 0) | (_wire.NO_LOAD if no_load else 0) | (_wire.STALE_OK if stale_ok else 0)


def get(ns: bytes, key: bytes, options: int) -> Call:
    return Call(_wire.GET, (ns, binary(key), optional(options)))


def mget(ns: bytes, keys: Sequence[bytes], options: int) -> Call:
    return Call(_wire.MGET, (ns, array([binary(k) for k in keys]), optional(options)))


def lease(ns: bytes, key: bytes, options: int) -> Call:
    return Call(_wire.LEASE, (ns, binary(key), optional(options)))


def fill(ns: bytes, key: bytes, token: bytes, value: bytes, flags: int, ttl: TTL) -> Call:
    return Call(
        _wire.FILL, (ns, binary(key), binary(token), binary(value), _ttl(ttl), optional(flags)), (key,), 7,
    )


def abandon(ns: bytes, key: bytes, token: bytes) -> Call:
    return abandon_encoded(ns, binary(key), token)


def abandon_encoded(ns: bytes, key: bytes, token: bytes) -> Call:
    """Give the token of a LEASE back, whose key is encoded already."""
    return Call(_wire.FILL, (ns, key, binary(token), NIL, NIL, NIL, uint(_wire.ABANDON)))


def store(
    ns: bytes, key: bytes, value: bytes, flags: int, ttl: TTL, mode: int, compare: int, ack_all: bool,
    create: bool = False,
) -> Call:
    options = (_wire.ACK_ALL if ack_all else 0) | (_wire.CREATE if create else 0)
    return Call(
        _wire.SET,
        (ns, binary(key), binary(value), _ttl(ttl), optional(flags), optional(mode),
         uint(compare) if mode == _wire.MODE_CAS else NIL, optional(options)),
        (key,), 8,
    )


def delete(
    ns: bytes, keys: Sequence[bytes], soft: bool, cache_only: bool, replica_lag: Optional[float], ack_all: bool
) -> Call:
    if replica_lag is not None and not 0 <= replica_lag <= 3600:
        raise BadRequestError(f"a replica_lag of {replica_lag} seconds: give 0 to 3600, or None for the namespace's")
    options = (_wire.SOFT if soft else 0) | (_wire.ACK_ALL if ack_all else 0)
    options |= _wire.CACHE_ONLY if cache_only else 0
    return Call(
        _wire.DELETE,
        (ns, array([binary(k) for k in keys]), optional(options), optional(milliseconds(replica_lag or 0))),
        tuple(keys), 4,
    )


def touch(ns: bytes, key: bytes, ttl: TTL, ack_all: bool) -> Call:
    return Call(_wire.TOUCH, (ns, binary(key), _ttl(ttl), _ack(ack_all)), (key,), 4)


def incr(ns: bytes, key: bytes, delta: int, initial: Optional[int], ttl: TTL, ack_all: bool) -> Call:
    for name, n in (("delta", delta), ("initial", initial)):
        if n is not None and not -(1 << 63) <= n < 1 << 63:
            raise BadRequestError(f"{name} is {n}: give a number of 64 bits")
    return Call(
        _wire.INCR,
        (ns, binary(key), sint(delta), NIL if initial is None else sint(initial), _ttl(ttl), _ack(ack_all)),
        (key,), 6,
    )


def unsigned(
    ns: bytes, key: bytes, delta: int, initial: Optional[int], ttl: TTL, down: bool, ack_all: bool
) -> Call:
    for name, n in (("delta", delta), ("initial", initial)):
        if n is not None and not 0 <= n < 1 << 64:
            raise BadRequestError(f"{name} is {n}: give a number of 64 bits without a sign")
    options = _wire.UNSIGNED | (_wire.DOWN if down else 0) | (_wire.ACK_ALL if ack_all else 0)
    return Call(
        _wire.INCR,
        (ns, binary(key), uint(delta), NIL if initial is None else uint(initial), _ttl(ttl), uint(options)),
        (key,), 6,
    )


def get_and_touch(ns: bytes, key: bytes, ttl: TTL) -> Call:
    if ttl is None:
        raise BadRequestError("get_and_touch without a ttl: give seconds, a timedelta or NO_EXPIRY")
    return Call(_wire.METAGET, (ns, binary(key), _ttl(ttl), uint(_wire.RETTL)), (key,), 4)


def flush(ns: bytes, all: bool, cluster: bool) -> Call:
    options = (_wire.ALL if all else 0) | (_wire.CLUSTER if cluster else 0)
    return Call(_wire.FLUSH, (ns, optional(options)))


def hits(ns: bytes, keys: Sequence[bytes], shared: int, absent: int, near: int) -> Call:
    """Report reads that this process has answered itself: see _hits. There is no answer."""
    return Call(
        _wire.HITS,
        (ns, array([binary(k) for k in keys]), optional(shared), optional(absent), optional(near), uint(_wire.QUIET)),
    )


def watch(ns: bytes, options: int, epoch: Optional[int], seq: int, wait_ms: int) -> Call:
    place = (NIL, NIL) if epoch is None else (uint(epoch), uint(seq))
    return Call(_wire.WATCH, (ns, optional(options), *place, uint(wait_ms)))


PING = Call(_wire.PING, ())
MEMBERS = Call(_wire.MEMBERS, ())
LEAVING = Call(_wire.LEAVING, ())


def stats(cluster: bool) -> Call:
    return Call(_wire.STATS, (optional(_wire.CLUSTER if cluster else 0),))


def _ttl(ttl: TTL) -> bytes:
    ms = ttl_ms(ttl)
    return NIL if ms is None else uint(ms)


def _ack(ack_all: bool) -> bytes:
    return optional(_wire.ACK_ALL if ack_all else 0)


def error_of(answer: Sequence[Any]) -> CacheError:
    """Return the error of an answer that has one."""
    status = answer[1]
    kind = BY_STATUS.get(status)
    message = answer[2] if len(answer) > 2 else ""
    told = message if isinstance(message, str) else repr(message)
    told = told.encode("utf-8", "replace").decode()
    if kind is None:
        return InternalError(f"the sidecar answered with the unknown status {status}: {told}")
    return kind(told)


def check(answer: Sequence[Any]) -> Sequence[Any]:
    """Raise the error of an answer that has one."""
    if answer[1] > _wire.EXISTS or answer[1] < 0:
        raise error_of(answer)
    return answer


def item(key: bytes, answer: Sequence[Any]) -> Optional[Item]:
    """Return the item of an answer to GET; None: a miss."""
    status = answer[1]
    if status == _wire.MISS:
        return None
    if status != _wire.OK and status != _wire.STALE:
        raise error_of(answer) if status > _wire.EXISTS else _misplaced(answer)
    n = len(answer)
    ttl = _wire.field(answer, 5, int)
    return Item(
        key, _wire.data(answer, 2), _wire.field(answer, 3, int), _wire.field(answer, 4, int),
        ttl / 1000 if ttl else None, SOURCES.get(answer[6], str(answer[6])) if n > 6 else "",
        answer[7] / 1000 if n > 7 and type(answer[7]) is int else 0.0, status == _wire.STALE,
    )


def touched_item(key: bytes, answer: Sequence[Any]) -> Optional[Item]:
    """Return the item of an answer to METAGET; None: a miss, or a value that a soft deletion has left."""
    check(answer)
    if answer[1] in (_wire.MISS, _wire.STALE):
        return None
    if answer[1] != _wire.OK:
        raise _misplaced(answer)
    ttl = _wire.field(answer, 5, int)
    return Item(
        key, _wire.data(answer, 2), _wire.field(answer, 3, int), _wire.field(answer, 4, int),
        ttl / 1000 if ttl else None, "", 0.0, False,
    )


def _misplaced(answer: Sequence[Any]) -> Malformed:
    return Malformed(f"the sidecar's answer has the status {answer[1]}, which has no place there")


def items(answer: Sequence[Any]) -> List[List[Any]]:
    """Return the items of an answer to MGET or DELETE in the form of answers."""
    check(answer)
    found = _wire.field(answer, 2, list)
    for one in found:
        if type(one) is not list or not one or type(one[0]) is not int:
            raise Malformed("the sidecar's answer has an item that is no array of a status and more")
    return [[0, *one] for one in found]


def stored(answer: Sequence[Any]) -> Optional[int]:
    """Return the version of an answer to SET or FILL. None: another version is there. 0: there is no value."""
    check(answer)
    if answer[1] == _wire.OK:
        return _version(answer, 2)
    if answer[1] == _wire.EXISTS:
        return None
    if answer[1] == _wire.MISS:
        return 0
    raise _misplaced(answer)


def _version(answer: Sequence[Any], at: int) -> int:
    return _wire.field(answer, at, int)  # type: ignore[no-any-return]


def present(answer: Sequence[Any]) -> bool:
    """Report whether there was a value: the answer to TOUCH, or an item of the answer to DELETE."""
    check(answer)
    if answer[1] not in (_wire.OK, _wire.MISS):
        raise _misplaced(answer)
    return bool(answer[1] == _wire.OK)


def deleted(answer: Sequence[Any], n: int) -> List[Union[bool, CacheError]]:
    """Return which keys of a DELETE had a value, or the errors of keys."""
    had: List[Union[bool, CacheError]] = []
    for one in items(answer):
        try:
            had.append(present(one))
        except Malformed:
            raise
        except CacheError as e:
            had.append(e)
    if len(had) != n:
        raise Malformed(f"the sidecar's answer to DELETE has {len(had)} items for {n} keys")
    return had


def deleted_one(answer: Sequence[Any]) -> bool:
    """Return whether the one key of a DELETE had a value."""
    had = deleted(answer, 1)[0]
    if isinstance(had, CacheError):
        raise had
    return had


def number(answer: Sequence[Any]) -> Optional[int]:
    """Return the number of an answer to INCR; None: a miss."""
    check(answer)
    return _wire.field(answer, 2, int) if answer[1] == _wire.OK else None


def body(answer: Sequence[Any], kind: type) -> Any:
    """Return the map, or the array, of an answer."""
    check(answer)
    return _wire.field(answer, 2, kind)


#: What a write has changed: keys, with the version of the change; 0: it is not known.
Changes = List[Tuple[bytes, int]]

_VERSION_AT = {_wire.SET: 2, _wire.FILL: 2, _wire.INCR: 3, _wire.TOUCH: 3, _wire.METAGET: 11}


def changed(call: Call, answer: Sequence[Any]) -> Changes:
    """Return what an answered write has changed."""
    if call.op == _wire.DELETE and answer[1] == _wire.OK:
        changes: Changes = []
        for key, one in zip(call.keys, items(answer)):
            if one[1] in (_wire.OK, _wire.MISS):
                changes.append((key, _known(one, 2)))
            elif not issubclass(BY_STATUS.get(one[1], InternalError), NOTHING_DONE):
                changes.append((key, 0))
        return changes
    if answer[1] == _wire.OK:
        version = _known(answer, _VERSION_AT[call.op])
        if call.op in (_wire.SET, _wire.FILL):
            version = max(version, _known(answer, 3))  # of the change, if it is not that of the value
    elif answer[1] == _wire.EXISTS:
        version = _known(answer, 2)
    elif nothing_done(answer) or call.op == _wire.METAGET and answer[1] == _wire.STALE:
        return []  # a stale value is not touched
    else:
        version = 0
    return [(key, version) for key in call.keys]


def _known(answer: Sequence[Any], at: int) -> int:
    return int(answer[at]) if len(answer) > at and type(answer[at]) is int and answer[at] > 0 else 0


def unknown(call: Call, error: BaseException) -> Changes:
    """Return what a write that has failed may have changed."""
    return [] if isinstance(error, NOTHING_DONE) else [(key, 0) for key in call.keys]


def nothing_done(answer: Sequence[Any]) -> bool:
    """Report whether a write was surely not executed, by its answer."""
    return bool(answer[1] > _wire.NOT_STORED) and issubclass(BY_STATUS.get(answer[1], InternalError), NOTHING_DONE)
