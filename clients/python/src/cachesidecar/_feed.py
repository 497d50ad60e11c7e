"""A place in the sidecar's stream of events, and what it asks and is answered. It is pure."""

from __future__ import annotations

import random
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

from . import _calls, _hash, _near, _wire
from ._hello import Welcome
from .errors import BadRequestError, ClosedError, Malformed, UnauthorizedError, UnsupportedError

#: After these errors of a stream another try would fail too.
FINAL = (BadRequestError, UnsupportedError, UnauthorizedError, ClosedError)


def pause(tries: int) -> float:
    """Return the seconds until the next try. They grow, up to one, and have jitter."""
    most = min(0.01 * 2 ** min(tries, 10), 1.0)
    return random.uniform(most / 2, most)


class Place:
    """The place up to which everything is known. It is valid on one connection."""

    def __init__(self, ns: bytes, options: int, wait: float) -> None:
        self._ns, self._options, self.wait = ns, options, wait
        self._conn: Any = None
        self._epoch: Optional[int] = None
        self._seq = 0

    def lost(self) -> None:
        """The next answer is a reset."""
        self._conn = None

    def call(self, conn: Any) -> _calls.Call:
        """Return the request for what follows."""
        if conn is not self._conn:
            self._conn, self._epoch, self._seq = conn, None, 0
        return _calls.watch(self._ns, self._options, self._epoch, self._seq, int(self.wait * 1000))

    def take(self, answer: List[Any]) -> Dict[str, Any]:
        """Return the map of an answer, whose fields have the right types."""
        told: Dict[str, Any] = _calls.body(answer, dict)
        for name in ("epoch", "after", "seq", "head", "behind_ms"):
            if type(told.get(name)) is not int or told[name] < 0:
                raise Malformed(f"the sidecar's answer to WATCH has {told.get(name)!r} as {name}")
        events = told.get("events")
        if type(told.get("reset")) is not bool or type(events) is not list or len(events) != 2:
            raise Malformed("the sidecar's answer to WATCH is malformed")
        if len(events[0] or b"") % 17:
            raise Malformed("the sidecar's answer to WATCH has half an event")
        self._epoch, self._seq = told["epoch"], told["seq"]
        return told


class Event(NamedTuple):
    """A change that the sidecar has heard of."""

    #: "changed" (a key was written, touched or deleted), "raised" (keys of partitions have changed, it is not known
    #: which), "flushed" (a namespace was emptied), "reset" (earlier changes are not known), or "beat" (nothing came).
    kind: str
    #: The changed key, if it is one of those that were asked for.
    key: Optional[bytes] = None
    #: Of "flushed", and of events with a key; None: all namespaces.
    namespace: Optional[str] = None
    #: Of "changed": the hash of the key.
    hash: int = 0
    #: Of the change; of "flushed": values of older versions are gone.
    version: int = 0
    #: Of "raised".
    partitions: Sequence[int] = ()


def public(
    told: Mapping[str, Any], welcome: Welcome, namespace: str, keys: Sequence[bytes]
) -> List[Event]:
    """Return the events of an answer for the application."""
    if told["reset"]:
        return [Event("reset")]
    names: Optional[Dict[int, bytes]] = None
    if keys:
        if welcome.hash.get("name") != "xxh3":
            raise UnsupportedError(f"the sidecar hashes keys with {welcome.hash.get('name')!r}: watch without keys")
        seed = _hash.namespace_seed(namespace.encode(), int(welcome.hash["seed"]))
        names = {_hash.key_hash(key, seed): key for key in keys}
    found: List[Event] = []
    for event in _near.events(told):
        if event is None:  # of a later version, whose meaning is not known
            return [*found, Event("reset")]
        if event.kind == 1:
            found.append(Event("raised", version=event.version, partitions=_near.partitions(event.partitions)))
        elif event.kind == 2:
            found.append(Event("flushed", namespace=event.namespace.decode() or None, version=event.version))
        elif names is None:
            found.append(Event("changed", hash=event.hash, version=event.version))
        elif event.hash in names:
            found.append(Event("changed", names[event.hash], namespace, event.hash, event.version))
    if not found and told["seq"] == told["head"]:
        found.append(Event("beat"))
    return found


def check_watch(keys: Sequence[bytes], beat: float) -> None:
    if len(keys) > _wire.MAX_KEYS or not 0.001 <= beat <= 3600:
        raise BadRequestError(
            f"to watch {len(keys)} keys with a beat of {beat} s: give at most {_wire.MAX_KEYS}, and 0.001 to 3600 s"
        )
