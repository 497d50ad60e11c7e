"""The reads that this process has answered itself, from its near cache or the shared memory. It does no I/O.

The sidecar cannot count them, so they are reported: by namespace, with the keys of some. Threads count without a lock:
one that is interrupted in the middle loses a count. What is lost with a report is not reported again.
"""

from __future__ import annotations

import sys
from random import getrandbits
from ._clock import monotonic
from typing import Dict, Iterator, List, Tuple

from . import _calls, _greenlets, _wire

#: Seconds from the first read that is not reported to the report.
AFTER = 0.25
_SAMPLE_BITS = 4  # of 16 reads in a row, the key of one is reported
_SAMPLE_KEYS = 256  # of one report, at most
_SAMPLE_BYTES = 32 << 10  # likewise, but for the last key
_TALLIES = 256  # namespaces of each kind; the reads of others are not reported


class Tally:
    """The reads of one namespace that one place has answered. A reader adds to it, and calls Hits.noted when due."""

    __slots__ = ("name", "near", "reads", "absent", "due", "pick", "told", "told_absent", "sample", "bytes")

    def __init__(self, name: bytes, near: bool) -> None:
        self.name, self.near = name, near
        self.reads = 0
        self.absent = 0  # of the reads
        self.due = 0  # the read of which Hits is to be told; 0: the next
        self.pick = getrandbits(_SAMPLE_BITS) + 1  # the read whose key is to be reported
        self.told = self.told_absent = 0  # what was reported
        self.sample: List[bytes] = []
        self.bytes = 0  # of the sample

    def noted(self, key: bytes) -> None:
        """Take the key if it is one of those that are reported."""
        if self.reads >= self.pick:
            # One of the next 16, at a place that varies: else of reads in turn always the same would be taken.
            self.pick = ((self.reads - 1 >> _SAMPLE_BITS) + 1 << _SAMPLE_BITS) + getrandbits(_SAMPLE_BITS) + 1
            if len(self.sample) < _SAMPLE_KEYS and self.bytes < _SAMPLE_BYTES:
                self.sample.append(key)
                self.bytes += len(key)
        self.due = self.pick

    def take(self) -> Tuple[int, int, List[bytes]]:
        """Return the reads that were not reported, how many of them were absent, and keys."""
        self.due = 0  # before the reads are counted: the next one begins another report
        absent = min(self.absent - self.told_absent, _wire.MAX_HITS)
        reads = min(self.reads - self.told, _wire.MAX_HITS)
        self.told, self.told_absent = self.told + reads, self.told_absent + min(absent, reads)
        keys: List[bytes] = []
        if reads:
            keys, self.sample, self.bytes = self.sample, [], 0
        return reads, min(absent, reads), keys


class Hits:
    """What a client has to report."""

    def __init__(self) -> None:
        self._forget()
        self._tallies: Dict[Tuple[bytes, bool], Tally] = {}

    def _forget(self) -> None:
        self._lock = _greenlets.mutex()
        self.pending = False  # there is something to report, and somebody will do so
        self._since = 0.0

    def forked(self) -> None:
        """Begin anew in a forked child. What the parent has counted, the parent reports."""
        self._forget()
        for tally in self._tallies.values():
            tally.take()

    def tally(self, name: bytes, near: bool) -> Tally:
        """Return the tally of a namespace."""
        tally = self._tallies.get((name, near))
        if tally is None:
            tally = Tally(name, near)
            if len(self._tallies) < 2 * _TALLIES:
                tally = self._tallies.setdefault((name, near), tally)
        return tally

    def count(self, near: bool) -> int:
        """Return the reads that were answered so."""
        return sum(tally.reads for tally in list(self._tallies.values()) if tally.near == near)

    def begins(self) -> bool:
        """Note a read that is not reported. Return whether it is the first one."""
        first, self.pending = not self.pending, True
        if first:
            self._since = monotonic()
        return first

    def rest(self) -> None:
        """Note that nothing can be reported now. The next read that is not reported begins again."""
        self.pending = False
        for tally in list(self._tallies.values()):
            tally.due = 0

    def late(self) -> bool:
        """Report whether a report is due, if no other code looks at the clock."""
        return monotonic() - self._since >= AFTER

    def take(self) -> Iterator[_calls.Call]:
        """Return the reports of what was not reported."""
        if not self._lock.acquire(not sys.is_finalizing()):
            return  # a thread that has it may have been stopped for ever
        try:
            self.pending = False
            taken = [(tally, *tally.take()) for tally in list(self._tallies.values())]
        finally:
            self._lock.release()
        for tally, reads, absent, keys in taken:
            if reads:
                ns = _wire.namespace(tally.name.decode())
                shared, near = (0, reads) if tally.near else (reads - absent, 0)
                yield _calls.hits(ns, keys, shared, absent, near)
