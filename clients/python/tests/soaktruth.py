"""What the soak knows about its keys: a table in a file that all its processes map, and the history of its calls.

Each key has one writer at a time. The table has the sequence number of its latest attempt to write, which is stored
before the write begins. internal/testing/checkhistory judges the history.
"""

import json
import mmap
import os
import random
import time
import zlib
from types import TracebackType
from typing import Any, Dict, List, Optional, Tuple, Type

WORDS = 4  # of a key: attempted, when the one before is settled, when it is, the latest that was settled
UNSETTLED_NS = 1_300_000_000  # a write whose outcome is unknown may be executed until its time is over


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

    def attempt(self, key: int) -> int:
        """Take the next number of a key."""
        at = key * WORDS
        self.words[at + 1] = self.words[at + 2]
        self.words[at + 2] = now_ns() + UNSETTLED_NS
        self.words[at] += 1
        return int(self.words[at])

    def settle(self, key: int, seq: int) -> None:
        """Note that a write was acknowledged. It is settled if none before it may be executed later."""
        at = key * WORDS
        before = self.words[at + 2] = self.words[at + 1]
        if now_ns() > before:
            self.words[at + 3] = seq

    def settled(self, key: int) -> int:
        """Return the number of a key's latest write, or -1 if it may be executed later than now."""
        seq = self.attempted(key)
        return seq if seq == int(self.words[key * WORDS + 3]) else -1


class History:
    """The history, in lines of JSON that package internal/testing/history describes."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def begin(self, near_bound: float, loaded: List[int]) -> None:
        """Begin a history. Some keys are loaded from the beginning, with the number 0."""
        os.ftruncate(self._file, 0)
        # The slack is for the clocks of the near caches.
        self.line({"history": 1, "bound": int(near_bound * 1e9), "slack": 30_000_000, "late": UNSETTLED_NS})
        for key in loaded:
            self.line({"op": "set", "key": name_of(key), "origin": True, "began": 0})

    def line(self, fields: Dict[str, Any]) -> None:
        os.write(self._file, json.dumps(fields).encode() + b"\n")

    def read(self, key: int, number: int, client: int, fresh: bool, began: int) -> None:
        """Note a read that has found a value. A client without a near cache sees all that its sidecar was told."""
        op = {"op": "read", "key": name_of(key), "host": str(client), "number": number, "began": began, "ended": now_ns()}
        self.line({**op, "fresh": True} if fresh else op)


class Write:
    """A write, while it is under way. Its outcome is unknown if it does not come to its end."""

    def __init__(self, history: History, op: str, key: int, client: int, **more: Any) -> None:
        self._history = history
        self.outcome = "done"
        self.fields: Dict[str, Any] = {"op": op, "key": name_of(key), "host": str(client), "began": now_ns(), **more}

    def __enter__(self) -> "Write":
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], e: Optional[BaseException], at: Optional[TracebackType]) -> None:
        outcome = "unknown" if kind is not None else self.outcome
        self._history.line({**self.fields, "ended": now_ns(), "outcome": outcome})


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


def parse(key: int, value: Any) -> int:
    """Check a value, whatever its encoding, and return its number."""
    try:
        if isinstance(value, int):
            seq, told, body, ttl = value >> 34, value & 0xFFFFF, b"", 0
            if value >> 20 & 0x3FFF != key or told != _sum(key, seq, 0, b"") & 0xFFFFF:
                raise Wrong(f"the integer {value} at key {key}")
            return int(seq)
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
    return int(seq)


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
