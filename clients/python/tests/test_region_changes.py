"""Regions that change while a reader has them, also in the middle of a read.

What is wrong in a region that stands still is in the golden regions.
"""

import os
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest
from test_region import COUNTER, ID, NOW, READERS, File

from cachesidecar._hash import xxh3_64
from cachesidecar._region import PureRegion

NAMES = 4096 + 3 * 128
OWNERS, PARTITIONS, STATE, TAIL, BOUND = 36864, 40960, 128, 256, 56


class Changed(File):
    def sign(self, key: bytes) -> None:
        """Gives an entry the checksum that it must have as it stands."""
        at = self.entry(key)
        head = self.map[at : at + 80]
        n = int.from_bytes(head[72:76], "little")
        value = self.map[at + 88 + len(key) : at + 88 + len(key) + n]
        self.put(at + 80, xxh3_64(value, xxh3_64(key, xxh3_64(head, 0))))


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Changed]:
    file = Changed(tmp_path / "region")
    yield file
    os.close(file.fd)


@pytest.mark.parametrize("name", READERS)
def test_a_new_incarnation_is_found(name: str, file: Changed) -> None:
    region, incarnation = file.open(name), file.word(NAMES)
    assert region.get(b"users", b"user:42", NOW)
    file.put(NAMES, incarnation + 1)
    file.put(file.entry(b"user:42") + 16, incarnation + 1)
    file.sign(b"user:42")
    assert region.get(b"users", b"user:42", NOW) is None
    assert region.get(b"users", b"user:42", NOW)


@pytest.mark.parametrize("name", READERS)
def test_an_entry_that_is_replaced(name: str, file: Changed) -> None:
    region, slot, at = file.open(name), file.slot(b"a"), file.entry(b"a")
    assert region.get(b"users", b"a", NOW)
    size = 128
    position = (file.word(slot) & (1 << 48) - 1) + 3000
    target = at + 64 * 3000
    file.map[target : target + size] = file.map[at : at + size]
    file.put(target, position)
    file.put(target + 48, 4321)
    file.put(slot, file.word(slot) + 3000)
    file.sign(b"a")
    found = region.get(b"users", b"a", NOW)
    assert found and found[2] == 4321


class Words:
    """The words of a region. It tells which are loaded, and lets a test act when one is."""

    def __init__(self, words: Any) -> None:
        self.words = words
        self.loads: List[int] = []
        self.before: Callable[[int], None] = lambda at: None

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, int):
            self.before(8 * at)
            self.loads.append(8 * at)
        return self.words[at]


def watched(file: Changed) -> "tuple[PureRegion, Words]":
    region = PureRegion(file.fd, ID, COUNTER)
    words = Words(region._words)
    region._words = words  # type: ignore[assignment]
    return region, words


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("what", ["slot", "incarnation", "generation", "partition", "state", "tail"])
def test_a_change_between_the_copy_and_the_checks(what: str, kept: bool, file: Changed) -> None:
    """A withdrawal that ends before certified is loaded must be seen; so must all that is raised before it."""
    region, words = watched(file)
    if kept:
        assert region.get(b"users", b"a", NOW)
    partition = PARTITIONS + 8 * (xxh3_64(b"a", file.word(NAMES + 24)) >> 50)
    places = {
        "slot": (file.slot(b"a"), 0), "incarnation": (NAMES, 99), "generation": (NAMES + 8, 99),
        "partition": (partition, 99), "state": (STATE, 2), "tail": (TAIL, 1 << 40),
    }  # fmt: skip
    place, value = places[what]
    old = file.word(place)
    words.before = lambda at: file.put(place, value) if at == OWNERS else None
    assert region.get(b"users", b"a", NOW) is None
    words.before = lambda at: None
    file.put(place, old)
    assert region.get(b"users", b"a", NOW)


@pytest.mark.parametrize("kept", [False, True])
def test_the_order_of_the_loads(kept: bool, file: Changed) -> None:
    region, words = watched(file)
    if kept:
        assert region.get(b"users", b"a", NOW)
    words.loads = []
    assert region.get(b"users", b"a", NOW)
    loads = words.loads
    certified = loads.index(OWNERS)
    partition = PARTITIONS + 8 * (xxh3_64(b"a", file.word(NAMES + 24)) >> 50)
    later = [BOUND, partition, NAMES + 8, NAMES, STATE, file.slot(b"a"), TAIL]
    assert loads[certified:] == [OWNERS, *later]


def test_a_namespace_that_changes_while_it_is_looked_up(file: Changed) -> None:
    region, words = watched(file)
    incarnation = file.word(NAMES)
    words.before = lambda at: file.put(NAMES, incarnation + 1) if at == NAMES + 32 else None
    assert region.get(b"users", b"a", NOW) is None
    assert region._places[b"users"].incarnation == 0
