"""Each check of a read is needed: entries whose checksum is right, and wrong otherwise.

The golden regions cannot show most of this, since a wrong checksum hides what else is wrong.
"""

import os
import struct
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional

import pytest
from test_region import COUNTER, ID, NOW, READERS, File

from cachesidecar._hash import xxh3_64
from cachesidecar._region import PureRegion

NAMES = 4096 + 3 * 128
OWNERS, PARTITIONS, STATE, TAIL, BOUND = 36864, 40960, 128, 256, 56
CLOCKS = 2_000_000
SECOND = 10**9


class Forger(File):
    def sign(self, key: bytes, length: Optional[int] = None) -> None:
        """Gives an entry the checksum that it must have as it stands."""
        at = self.entry(key)
        head = self.map[at : at + 80]
        n = int.from_bytes(head[72:76], "little") if length is None else length
        value = self.map[at + 88 + len(key) : at + 88 + len(key) + n]
        self.put(at + 80, xxh3_64(value, xxh3_64(key, xxh3_64(head, 0))))

    def forge(self, key: bytes, at: int, format: str, value: int) -> None:
        struct.pack_into(format, self.map, self.entry(key) + at, value)
        self.sign(key)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Forger]:
    file = Forger(tmp_path / "region")
    yield file
    os.close(file.fd)


FORGED = {
    "its position": (0, "<Q", 1),
    "its hash": (8, "<Q", 1),
    "its incarnation": (16, "<Q", 99),
    "its generation": (24, "<Q", 99),
    "its partition's generation": (32, "<Q", 99),
    "its end, past": (40, "<Q", NOW + CLOCKS),
    "its end, no time": (40, "<Q", 1 << 63),
    "its slot": (56, "<I", 200),
    "its owner": (60, "<I", 256),
    "its key's length": (68, "<I", 6),
    "its length": (72, "<I", 16385),
    "its length, hostile": (72, "<I", 0xFFFFFFFF),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("what", sorted(FORGED))
def test_forged(what: str, name: str, file: Forger) -> None:
    file.forge(b"user:42", 48, "<Q", 1234)
    found = file.open(name).get(b"users", b"user:42", NOW)
    assert found and found[2] == 1234  # what is forged with care is found
    file.put(OWNERS + 8 * 256, NOW)  # an owner beyond the table would find a moment there
    file.forge(b"user:42", *FORGED[what])
    assert file.open(name).get(b"users", b"user:42", NOW) is None


@pytest.mark.parametrize("name", READERS)
def test_another_key_of_the_same_hash(name: str, file: Forger) -> None:
    at = file.entry(b"user:42") + 88
    file.map[at : at + 7] = b"user:43"
    assert file.open(name).get(b"users", b"user:42", NOW) is None


@pytest.mark.parametrize("name", READERS)
def test_another_namespace_of_the_same_length(name: str, file: Forger) -> None:
    assert file.open(name).get(b"userz", b"user:42", NOW) is None


@pytest.mark.parametrize("name", READERS)
def test_a_slot_without_a_namespace(name: str, file: Forger) -> None:
    file.put(NAMES, 0)
    file.forge(b"user:42", 16, "<Q", 0)
    assert file.open(name).get(b"users", b"user:42", NOW) is None


@pytest.mark.parametrize("name", READERS)
def test_a_new_incarnation_is_found(name: str, file: Forger) -> None:
    region, incarnation = file.open(name), file.word(NAMES)
    assert region.get(b"users", b"user:42", NOW)
    file.put(NAMES, incarnation + 1)
    file.forge(b"user:42", 16, "<Q", incarnation + 1)
    assert region.get(b"users", b"user:42", NOW) is None
    assert region.get(b"users", b"user:42", NOW)


@pytest.mark.parametrize("name", READERS)
def test_an_entry_that_is_replaced(name: str, file: Forger) -> None:
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


@pytest.mark.parametrize("name", READERS)
def test_the_clock(name: str, file: Forger) -> None:
    """-2 ms <= now - certified < bound - 2 ms, of this host with the sidecar's bound."""
    region = file.open(name)
    for age, found in ((-CLOCKS - 1, 0), (-CLOCKS, 1), (2 * SECOND - CLOCKS - 1, 1), (2 * SECOND - CLOCKS, 0)):
        assert bool(region.get(b"users", b"a", NOW + age)) == found, age
    for age, found in ((SECOND - CLOCKS - 1, 1), (SECOND - CLOCKS, 0)):
        assert bool(region.get(b"users", b"of-another-owner", NOW + age)) == found, age
    for certified, bound, now in ((0, 2 * SECOND, SECOND), ((1 << 64) - 10**8, 2 * SECOND, 10**8), (NOW, 1 << 63, NOW)):
        file.put(OWNERS, certified)
        file.put(BOUND, bound)
        assert region.get(b"users", b"a", now) is None, (certified, bound)


@pytest.mark.parametrize("name", READERS)
def test_an_entry_at_the_end_of_the_file(name: str, file: Forger) -> None:
    size, lines, slot = len(file.map), file.word(32), file.slot(b"a")
    tag, hash = file.word(slot) >> 48 << 48, xxh3_64(b"a", file.word(NAMES + 24))
    for back in (1, 2):  # its head, or its value, would be beyond the end
        file.put(slot, tag | 2 * lines - back)  # not below tail
        at = file.entry(b"a")
        head = struct.pack(
            "<7QIIIIII", 2 * lines - back, hash, file.word(NAMES), file.word(NAMES + 8),
            file.word(PARTITIONS + 8 * (hash >> 50)), 0, 1, 3, 0, 0, 1, 300, 0,
        )  # fmt: skip
        body = (head + bytes(8) + b"a" + bytes(300))[: size - at]
        file.map[at:] = body
        if back == 2:
            file.sign(b"a", 300)  # of what is before the end
        assert file.open(name).get(b"users", b"a", NOW) is None, back


HEADERS = {
    "magic": (0, 1), "layout": (8, 2), "size": (16, 1 << 21), "no buckets": (24, 0), "odd buckets": (24, 3),
    "many buckets": (24, 1 << 35), "more buckets than room": (24, 1 << 15), "few lines": (32, 4095),
    "many lines": (32, (1 << 34) + 1), "more lines than room": (32, 1 << 14), "all lines": (32, (1 << 64) - 1),
}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("what", sorted(HEADERS))
def test_headers(what: str, name: str, file: Forger) -> None:
    file.put(*HEADERS[what])
    with pytest.raises(ValueError, match="no region of layout 1"):
        file.open(name)


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


def watched(file: Forger) -> "tuple[PureRegion, Words]":
    region = PureRegion(file.fd, ID, COUNTER)
    words = Words(region._words)
    region._words = words  # type: ignore[assignment]
    return region, words


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("what", ["slot", "incarnation", "generation", "partition", "state", "tail"])
def test_a_change_between_the_copy_and_the_checks(what: str, kept: bool, file: Forger) -> None:
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
def test_the_order_of_the_loads(kept: bool, file: Forger) -> None:
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


def test_a_namespace_that_changes_while_it_is_looked_up(file: Forger) -> None:
    region, words = watched(file)
    incarnation = file.word(NAMES)
    words.before = lambda at: file.put(NAMES, incarnation + 1) if at == NAMES + 32 else None
    assert region.get(b"users", b"a", NOW) is None
    assert region._places[b"users"].incarnation == 0
