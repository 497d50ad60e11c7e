"""The near cache's rules, in virtual time. Each test breaks one of them, and finds nothing served."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

import pytest

from cachesidecar import _hash
from cachesidecar._hello import Welcome
from cachesidecar._near import Asked, Near

S = 1_000_000_000
WELCOME = Welcome(
    {"node": "n", "epoch": 7, "features": ["watch"], "limits": {"value": 1}, "hash": {
        "name": "xxh3", "seed": 5, "partitions": 16384}}, 0, 0,
)


def told(
    after: int, seq: int, head: Optional[int] = None, reset: bool = False, events: Any = (None, None)
) -> Dict[str, Any]:
    return {
        "epoch": 1, "after": after, "seq": seq, "head": seq if head is None else head, "reset": reset,
        "events": list(events), "behind_ms": 0,
    }


def event(kind: int, hash: int, version: int) -> bytes:
    return bytes([kind]) + hash.to_bytes(8, "big") + version.to_bytes(8, "big")


class Bench:
    """A near cache that follows a stream since second 10, with a value that was asked for at second 11."""

    def __init__(self, limit: int = 1 << 20, keep: bool = True) -> None:
        self.near = Near(limit, 1.0)
        space = self.near.space(b"users")
        assert space is not None
        self.space = space
        assert self.near.apply(10 * S, 10 * S, told(0, 5, reset=True), WELCOME)
        self.hash = _hash.key_hash(b"k", space.seed)
        self.near.apply(11 * S, 11 * S, told(5, 5), WELCOME)
        if keep:
            self.keep()
            assert self.served(11.5) == "v"

    def keep(self, at: int = 11, as_of: int = 100, version: int = 90, ttl_ms: int = 0, epoch: int = 7) -> None:
        asked = Asked(at * S, self.near.stream)
        self.near.keep(self.space, b"k", asked, epoch, b"v", 16, version, ttl_ms, as_of)

    def apply(self, *events: bytes, details: Any = None, sent: float = 11.2) -> None:
        place = self.near._place
        n = place + len(events)
        self.near.apply(int(sent * S), int(sent * S), told(place, n, events=(b"".join(events), details)), WELCOME)

    def served(self, at: float) -> Any:
        kept = self.near.find(self.space, b"k", lambda: int(at * S))
        return None if kept is None else self.near.value(kept)


def test_the_bound_counts_from_the_request() -> None:
    b = Bench()
    assert b.served(11.999) == "v" and b.served(12.0) is None
    b.apply(sent=12.5)
    assert b.served(13.4) == "v"


def test_the_lease_waits_for_the_head() -> None:
    b = Bench()
    b.near.apply(13 * S, 13 * S, told(5, 6, head=9), WELCOME)
    assert b.served(13.1) is None
    b.near.apply(int(13.1 * S), 13 * S, told(6, 9), WELCOME)
    assert b.served(13.2) == "v"


def test_a_gap_extends_nothing() -> None:
    b = Bench()
    b.near.apply(13 * S, 13 * S, told(6, 8), WELCOME)
    assert b.served(13.1) is None


@pytest.mark.parametrize("version, served", [(99, "v"), (100, "v"), (101, None)])
def test_a_change(version: int, served: Any) -> None:
    b = Bench()
    b.apply(event(0, b.hash, version))
    assert b.served(11.5) == served


def test_an_answer_that_is_older_than_a_change_told_before() -> None:
    b = Bench(keep=False)
    b.apply(event(0, b.hash, 101))
    b.keep()
    assert b.served(11.5) is None
    b.keep(as_of=101)
    assert b.served(11.5) == "v"


def test_a_slot_that_two_keys_share_costs_a_miss() -> None:
    b = Bench(keep=False)
    b.apply(event(0, b.hash, 101), event(0, b.hash ^ (1 << 63), 50))
    b.keep()
    assert b.served(11.5) is None


def test_partitions_raised() -> None:
    b = Bench()
    part = b.hash >> 50
    bits = bytearray(part // 8 + 1)
    bits[part // 8] |= 1 << part % 8
    b.apply(event(1, 0, 1), details=[[bytes(bits), ""]], sent=11.4)
    assert b.served(11.5) is None
    b.keep(at=11)
    assert b.served(11.5) is None  # it was asked for before
    b.keep(at=12)
    assert b.served(11.6) == "v"


@pytest.mark.parametrize(
    "name, version, served", [("users", 91, None), ("", 91, None), ("users", 90, "v"), ("x", 91, "v")]
)
def test_flushed(name: str, version: int, served: Any) -> None:
    b = Bench()
    b.apply(event(2, 0, version), details=[[None, name]])
    assert b.served(11.5) == served
    b.keep()
    assert b.served(11.5) == served


def test_an_unknown_kind_outdates_everything() -> None:
    b = Bench()
    b.apply(event(9, 0, 1))
    assert b.served(11.5) is None


def test_the_ttl_counts_from_the_request() -> None:
    b = Bench()
    b.keep(ttl_ms=500)
    assert b.served(11.499) == "v" and b.served(11.5) is None


def test_another_process_answers() -> None:
    b = Bench(keep=False)
    b.keep(epoch=8)
    assert b.served(11.5) is None


def test_a_reset_and_the_end_drop_everything() -> None:
    b = Bench()
    asked = Asked(11 * S, b.near.stream)
    b.near.apply(int(11.4 * S), int(11.4 * S), told(0, 50, reset=True), WELCOME)
    assert b.served(11.5) is None
    b.near.keep(b.space, b"k", asked, 7, b"v", 16, 90, 0, 100)  # asked for before the reset
    assert b.served(11.5) is None
    b.keep()
    assert b.served(11.5) == "v"
    b.near.end()
    assert b.served(11.5) is None and b.near.stats(0).bytes == 0


@pytest.mark.parametrize("version", [101, 0])
def test_own_writes(version: int) -> None:
    b = Bench()
    b.near.wrote(b.space, b"k", version, int(11.3 * S))
    assert b.served(11.5) is None
    b.keep()  # an answer that was on its way
    assert b.served(11.5) is None


def test_it_is_bounded_and_keeps_what_is_read() -> None:
    b = Bench()
    stream = b.near.stream
    for i in range(5000):
        assert b.served(11.5) == "v"
        b.near.keep(b.space, b"%d" % i, Asked(11 * S, stream), 7, b"x" * 1000, 0, 90, 0, 100)
    stats = b.near.stats(0)
    assert stats.bytes <= 1 << 20 and 300 < stats.entries < 1000
    assert stats.bytes == sum(kept.cost for kept in b.near._queue.values())
    assert len(b.space.values) == stats.entries


def test_another_hash_is_not_followed() -> None:
    near = Near(1 << 20, 1.0)
    other: List[Any] = [WELCOME.hash]
    welcome = Welcome(
        {"node": "n", "epoch": 7, "features": [], "limits": {"value": 1}, "hash": {**other[0], "name": "md5"}}, 0, 0
    )
    assert not near.apply(S, S, told(0, 5, reset=True), welcome) and not near.stats(0).following
