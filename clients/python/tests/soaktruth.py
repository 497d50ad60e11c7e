"""What the soak knows about its keys: a table in a file that all its processes map.

Each key has one writer at a time. The table has the sequence number of its latest attempt to write, and the moments of
the boot clock at which the latest writes were acknowledged. A number is stored before the write begins, and a moment
after its acknowledgement: so a check can only be too mild, never wrong.
"""

import mmap
import os
import random
import time
import zlib
from typing import Any, NamedTuple, Optional, Tuple

RING = 512
WORDS = 4 + 3 * RING  # of a key: attempted, when it was settled, when it is, one of reserve; (seq, acknowledged, client)…
SLACK_NS = 30_000_000
UNSETTLED_NS = 1_300_000_000
LATE = 16  # increments of unknown outcome that may be executed after a later one


class Wrong(Exception):
    """An answer that no correct client gives."""


def now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Table:
    """The table."""

    def __init__(self, path: str, keys: int) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(fd, 8 * WORDS * keys)
        self._map = mmap.mmap(fd, 8 * WORDS * keys)
        os.close(fd)
        self.words = memoryview(self._map).cast("Q")

    def attempted(self, key: int) -> int:
        return int(self.words[key * WORDS])

    def attempt(self, key: int, client: int) -> int:
        """Take the next number of a key."""
        seq = self.attempted(key) + 1
        at = self._at(key, seq)
        # A write whose outcome is unknown may be executed until its time is over: until then nothing is acknowledged.
        self.words[key * WORDS + 1] = self.words[key * WORDS + 2]
        self.words[key * WORDS + 2] = now_ns() + UNSETTLED_NS
        self.words[at + 1] = 0
        self.words[at] = seq
        self.words[at + 2] = client
        self.words[key * WORDS] = seq
        return seq

    def acknowledge(self, key: int, seq: int) -> None:
        before = self.words[key * WORDS + 2] = self.words[key * WORDS + 1]
        at = self._at(key, seq)
        if self.words[at] == seq and now_ns() > before:
            self.words[at + 1] = now_ns()

    def acknowledged(self, key: int, seq: int) -> int:
        at = self._at(key, seq)
        moment = self.words[at + 1]
        return int(moment) if self.words[at] == seq else 0

    def _at(self, key: int, seq: int) -> int:
        return key * WORDS + 4 + 3 * (seq % RING)

    def check(self, key: int, seq: int, asked: int, client: int, bound_ns: int, late: int = 0) -> None:
        """Refuse a value that was overwritten too long before the moment at which it was asked for."""
        latest = self.attempted(key)
        if seq > latest + late:
            raise Wrong(f"key {key}: number {seq} was never written, the latest is {latest}")
        for later in range(max(seq + 1, latest - RING + 2), latest + 1):
            moment = self.acknowledged(key, later)
            own = client == self.words[self._at(key, later) + 2]  # a client sees its own writes at once
            if moment and asked - moment > (0 if own else bound_ns) + SLACK_NS:
                ago = (asked - moment) / 1e6
                raise Wrong(f"key {key}: number {seq} was read, {later} was acknowledged {ago:.1f} ms before the read began, "
                            f"the bound is {0 if own else bound_ns / 1e6:.0f} ms")


def name_of(key: int) -> str:
    return f"soak:{key}"


_PAD = bytes(range(256)) * 800


def _sum(key: int, seq: int, ttl_ms: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(b"%d %d %d" % (key, seq, ttl_ms)))


def make(key: int, seq: int, ttl_ms: int = 0) -> Any:
    """Make a value: its encoding and its length depend on the number."""
    long = 20_000 if seq % 37 == 0 else 150_000 if seq % 211 == 0 else 0
    body = _PAD[: long or random.randrange(400)]
    kind = seq % 4
    if kind == 0:
        return b"%d %d %d %d " % (key, seq, ttl_ms, _sum(key, seq, ttl_ms, body)) + body
    if kind == 1:
        text = "é☃𝄞" * (len(body) // 9)
        return f"{key} {seq} {ttl_ms} {_sum(key, seq, ttl_ms, text.encode())} {text}"
    if kind == 2:
        return {"key": key, "seq": seq, "ttl": ttl_ms, "sum": _sum(key, seq, ttl_ms, body), "body": body, "big": 1 << 60}
    return ((seq << 14 | key) << 20) + (_sum(key, seq, 0, b"") & 0xFFFFF) if ttl_ms == 0 else make_bytes(key, seq, ttl_ms)


def make_bytes(key: int, seq: int, ttl_ms: int) -> bytes:
    return b"%d %d %d %d " % (key, seq, ttl_ms, _sum(key, seq, ttl_ms, b""))


class Read(NamedTuple):
    seq: int
    ttl_ms: int


def parse(key: int, value: Any) -> Read:
    """Check a value, whatever its encoding, and return its number."""
    try:
        if isinstance(value, int):
            seq, told, body, ttl = value >> 34, value & 0xFFFFF, b"", 0
            if value >> 20 & 0x3FFF != key or told != _sum(key, seq, 0, b"") & 0xFFFFF:
                raise Wrong(f"the integer {value} at key {key}")
            return Read(seq, 0)
        if isinstance(value, dict):
            at, seq, ttl, told, body = value["key"], value["seq"], value["ttl"], value["sum"], value["body"]
            if value["big"] != 1 << 60:
                raise Wrong(f"a wrong number within the value of key {key}")
        else:
            data = value.encode() if isinstance(value, str) else value
            a, b, c, d, body = data.split(b" ", 4)
            at, seq, ttl, told = int(a), int(b), int(c), int(d)
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise Wrong(f"key {key}: {type(value).__name__} {value!r:.80}: {e!r}") from None
    kind = (2,) if isinstance(value, dict) else (1,) if isinstance(value, str) else (0, 3)
    if at != key or told != _sum(key, seq, ttl, body) or seq % 4 not in kind:
        raise Wrong(f"key {key}: a {type(value).__name__} of key {at}, number {seq}, {value!r:.80}")
    return Read(seq, ttl)


def restarts(path: Optional[str]) -> "list[Tuple[int, int]]":
    """Return when sidecars were ended and when the next ones served."""
    spans = []
    down = 0
    if path and os.path.exists(path):
        with open(path) as lines:
            for line in lines:
                _, what, moment = line.split()
                if what == "down":
                    down = int(moment)
                else:
                    spans.append((down, int(moment)))
    return spans
