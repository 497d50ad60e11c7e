"""Item is what a read returns beside the value."""

from __future__ import annotations

from typing import Any, NamedTuple, Optional

from . import _encode

SOURCES = {1: "l1", 2: "l2", 3: "peer", 4: "origin"}


class Item(NamedTuple):
    """A value as it is stored, and what is known about it."""

    key: bytes
    #: The bytes as they are stored.
    data: bytes
    #: The low 8 bits name the encoding; the upper 24 bits are the app's.
    flags: int
    #: Names the write that stored the value; for compare_and_swap.
    version: int
    #: The seconds until the value expires; None: it does not.
    ttl: Optional[float]
    #: Where the value was: "l1" (a copy on this host), "l2" (this host owns the key), "peer" (the owner),
    #: "origin", "near" (this process), "shared" (the shared memory) or "load" (a loader).
    source: str
    #: For how many seconds the value may have been outdated, at most, and not how old it is. Of a stale value it
    #: is the time since the value's end.
    age: float
    #: Whether the value was deleted or has expired, and was asked for with stale_ok.
    stale: bool

    @property
    def value(self) -> Any:
        """The decoded value. Raises EncodingError if its encoding is not known."""
        return _encode.decode(self.key, self.data, self.flags)
