"""The two readers of the shared memory, held to the golden regions, to each other, and to hostile bytes."""

import gc
import gzip
import json
import mmap
import os
import random
import threading
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest
from raw import ROOT, extension, missing

from cachesidecar import _region
from cachesidecar._hash import xxh3_64
from cachesidecar._region import ABSENT, Found, PureRegion, Region, open_region

GOLDEN = Path(os.environ.get("CACHESIDECAR_REGIONS", ROOT / "internal" / "shm" / "testdata" / "regions"))
ID, COUNTER = 7, 1
NOW = 100_000_000_000  # all that the good region has may be served at this moment

READERS = ["pure", "native"]


def reader(name: str, fd: int, id: int = ID, counter: int = COUNTER) -> Region:
    if name == "pure":
        return PureRegion(fd, id, counter)
    region: Region = extension().Region(fd, id, counter)
    return region


class File:
    """A golden region that a test may write."""

    def __init__(self, path: Path, name: str = "good") -> None:
        if not GOLDEN.exists():
            missing("set CACHESIDECAR_REGIONS to internal/shm/testdata/regions of the repository")
        self.path = path
        path.write_bytes(gzip.decompress((GOLDEN / f"{name}.gz").read_bytes()))
        self.fd = os.open(path, os.O_RDWR)
        self.map = mmap.mmap(self.fd, 0)

    def open(self, name: str) -> Region:
        return reader(name, self.fd)

    def word(self, at: int) -> int:
        return int.from_bytes(self.map[at : at + 8], "little")

    def put(self, at: int, value: int) -> None:
        self.map[at : at + 8] = (value & (1 << 64) - 1).to_bytes(8, "little")

    def slot(self, key: bytes) -> int:
        """Returns the place of a key's word in the index."""
        hash, buckets = xxh3_64(key, self.word(4096 + 3 * 128 + 24)), self.word(24)
        bucket = 172032 + 64 * (hash & (buckets - 1))
        return next(at for at in range(bucket, bucket + 64, 8) if self.word(at) >> 48 == hash >> 32 & 0xFFFF)

    def entry(self, key: bytes) -> int:
        position = self.word(self.slot(key)) & (1 << 48) - 1
        return 172032 + 64 * self.word(24) + 64 * (position % self.word(32))


@pytest.fixture
def good(tmp_path: Path) -> Iterator[File]:
    file = File(tmp_path / "region")
    yield file
    file.map.close()
    os.close(file.fd)


def reads() -> Dict[str, List[Dict[str, Any]]]:
    if not GOLDEN.exists():
        return {}
    by: Dict[str, List[Dict[str, Any]]] = {}
    for read in json.loads((GOLDEN / "reads.json").read_text()):
        by.setdefault(read["region"], []).append(read)
    return by


def outcome(found: Found) -> Tuple[Any, ...]:
    if found is None:
        return ("miss",)
    if not found:
        return ("absent",)
    return "hit", found[2], found[1], len(found[0]), f"{xxh3_64(found[0], 0):016x}"


def wanted(read: Dict[str, Any]) -> Tuple[Any, ...]:
    if read["want"] != "hit":
        return ("absent" if read["want"] == "absent" else "miss",)
    return "hit", read["version"], read.get("flags", 0), read.get("length", 0), read["sum"]


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("region", sorted(reads()))
def test_golden(region: str, name: str, tmp_path: Path) -> None:
    file = File(tmp_path / "region", region)
    wants = reads()[region]
    if wants[0]["want"] == "refused":
        with pytest.raises(ValueError, match="layout 1|bytes or more"):
            file.open(name)
        return
    for read in wants:
        fresh = file.open(name)
        for again in range(2):  # the second time from what is kept
            found = fresh.get(read["namespace"].encode(), read["key"].encode(), read["now"])
            assert outcome(found) == wanted(read), (read, again)


KEYS = [b"a", b"user:42", b"of-another-owner", b"ends", b"none", b"empty", b"long-value", b"k" * 1024]


@pytest.mark.parametrize("name", READERS)
def test_refused(name: str, good: File) -> None:
    for id, counter in ((ID + 1, COUNTER), (ID, COUNTER + 1)):
        with pytest.raises(ValueError, match=f"not region {id} at {counter} or later"):
            reader(name, good.fd, id, counter)
    for size in (0, 8, 1 << 19, (1 << 20) - 8):
        os.truncate(good.fd, size)
        with pytest.raises((ValueError, OSError)):
            good.open(name)


@pytest.mark.parametrize("name", READERS)
def test_close(name: str, good: File) -> None:
    gc.collect()  # Clients that earlier tests left hold descriptors until then.
    before = mappings(good), len(os.listdir("/proc/self/fd"))
    region = good.open(name)
    assert region.id == ID and not region.closed and region.get(b"users", b"a", NOW)
    region.close()
    region.close()
    assert region.closed and region.get(b"users", b"a", NOW) is None
    assert (mappings(good), len(os.listdir("/proc/self/fd"))) == before
    reader(name, good.fd)
    for _ in range(3):
        with pytest.raises(ValueError):
            reader(name, good.fd, ID + 1)
    gc.collect()
    assert (mappings(good), len(os.listdir("/proc/self/fd"))) == before


def mappings(file: File) -> int:
    return Path("/proc/self/maps").read_text().count(str(file.path))


@pytest.mark.parametrize("name", READERS)
def test_ttl(name: str, good: File) -> None:
    ends = good.word(good.entry(b"ends") + 40)
    region = good.open(name)
    for now, want in ((NOW, (ends - NOW) // 10**6), (ends - 2_000_001, 2), (ends - 2_000_000, None)):
        found = region.get(b"users", b"ends", now)
        assert (found and found[3]) == want, now
    good.put(good.entry(b"a") + 40, 0)
    found = region.get(b"users", b"a", NOW)
    assert found and found[3] == 0


@pytest.mark.parametrize("name", READERS)
def test_types(name: str, good: File) -> None:
    region = good.open(name)
    assert region.get(b"users", b"", NOW) is None and region.get(b"", b"a", NOW) is None
    assert region.get(b"x" * 65, b"a", NOW) is None and region.get(b"users", b"x" * 2000, NOW) is None
    assert region.get(b"users", b"a") is None  # the boot clock is not near the golden regions'


def mutate(source: random.Random, data: bytearray, entries: List[int]) -> None:
    """Changes bytes, mostly where they matter."""
    for _ in range(source.choice((1, 1, 2, 8, 64))):
        start, size = source.choice(
            [(0, 320), (4096 + 3 * 128, 128), (36864, 80), (40960, 131072), (0, len(data))]
            + [(at, 128) for at in entries]
        )
        at = start + source.randrange(size)
        data[at] = source.choice((0, 1, 0x7F, 0x80, 0xFF, data[at] ^ 1 << source.randrange(8), source.randrange(256)))


@pytest.mark.parametrize("name", READERS)
def test_hostile_bytes_find_nothing_wrong(name: str, good: File) -> None:
    region = good.open(name)
    right = {key: region.get(b"users", key, NOW) for key in KEYS}
    assert all(found is not None for found in right.values())
    original = bytes(good.map[:])
    places = [good.slot(key) for key in KEYS] + [good.entry(key) for key in KEYS]
    found = missed = 0
    for seed in range(250):
        data = bytearray(original)
        mutate(random.Random(seed), data, places)
        good.map[:] = bytes(data)
        try:
            region = good.open(name)
        except ValueError:
            continue
        for key, want in right.items():
            got = region.get(b"users", key, NOW)
            assert got is None or got == want, (seed, key)
            found, missed = found + (got is not None), missed + (got is None)
    assert found > 100 and missed > 100


@pytest.mark.parametrize("name", READERS)
def test_truncated_files_are_refused(name: str, good: File) -> None:
    source = random.Random(3)
    for _ in range(50):
        size = source.randrange(1 << 20)
        os.truncate(good.fd, size)
        with pytest.raises((ValueError, OSError)):
            good.open(name)


def test_what_is_kept_is_checked_as_what_is_copied(good: File) -> None:
    """Words change at random. The reader in Python, which keeps entries, must answer as the one in C."""
    pure, native = good.open("pure"), good.open("native")
    source, agreed = random.Random(11), 0
    names = 4096 + 3 * 128
    words = [56, 128, 256, 36864, 36864 + 9 * 8, names, names + 8, names + 16, names + 24]
    words += [good.slot(key) for key in KEYS]
    words += [40960 + 8 * (xxh3_64(key, good.word(names + 24)) >> 50) for key in KEYS]
    for step in range(6000):
        at = source.choice(words)
        old = good.word(at)
        now = NOW + source.choice((0, 0, 0, -2_000_000, -2_000_001, 498_000_000, 10**9 - 2_000_000, 1_999_000_000))
        for value in (source.choice((0, old + 1, old - 1, 1, 1 << 63, NOW)), old):
            good.put(at, value)
            for key in source.sample(KEYS, 3):
                a, b = pure.get(b"users", key, now), native.get(b"users", key, now)
                assert a == b, (step, at, value, key, now)
                agreed += a is not None
    assert agreed > 2000


def test_kept_bytes_are_bounded(good: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_region, "_MEMO_BYTES", 20_000)
    region = PureRegion(good.fd, ID, COUNTER)
    for i in range(2000):
        region.get(b"users", b"%d" % i, NOW)
        assert region.get(b"users", KEYS[i % len(KEYS)], NOW) is not None
        assert region._kept <= 20_000
        kept = sum(len(p.memo) + len(p.hashes) for p in region._places.values())
        assert kept * _region._MEMO_EACH <= 20_000
    for i in range(3000):
        region.get(b"n%d" % i, b"a", NOW)
        assert len(region._places) <= _region._NAMESPACES


@pytest.mark.parametrize("name", READERS)
def test_a_namespace_is_found_when_it_comes_and_again_when_it_moves(name: str, good: File) -> None:
    names, elsewhere = 4096 + 3 * 128, 4096 + 90 * 128
    region = good.open(name)
    incarnation = good.word(names)
    good.put(names, 0)
    assert region.get(b"users", b"a", NOW) is None
    good.put(names, incarnation)
    assert region.get(b"users", b"a", NOW + 1) is None  # it is not looked for so soon
    assert region.get(b"users", b"a", NOW + 10_000_000)
    good.put(names, incarnation + 1)
    assert region.get(b"users", b"a", NOW) is None  # the place is gone
    assert region.get(b"users", b"a", NOW) is None  # the entry is of another incarnation
    good.put(names, incarnation)
    region.get(b"users", b"a", NOW)
    assert region.get(b"users", b"a", NOW)
    good.map[elsewhere : elsewhere + 128] = good.map[names : names + 128]
    good.put(names, 0)
    region.get(b"users", b"a", NOW)
    assert region.get(b"users", b"a", NOW) is None  # the entry is of another slot


@pytest.mark.parametrize("name", READERS)
def test_many_namespaces(name: str, good: File) -> None:
    region = good.open(name)
    for i in range(300):
        assert region.get(b"other-%d" % (i % 40), b"a", NOW) is None
        assert region.get(b"users", b"a", NOW)


@pytest.mark.parametrize("name", READERS)
def test_threads(name: str, good: File) -> None:
    region = good.open(name)
    wrong: List[object] = []

    def read() -> None:
        try:
            for i in range(3000):
                found = region.get(b"users", KEYS[i % 4], NOW)
                if not found or found[2] != 1000 + i % 4:
                    wrong.append(found)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_choice(good: File, monkeypatch: pytest.MonkeyPatch) -> None:
    extension()
    assert not isinstance(open_region(good.fd, ID, COUNTER), PureRegion)
    monkeypatch.setenv("CACHESIDECAR_PURE", "1")
    assert isinstance(open_region(good.fd, ID, COUNTER), PureRegion)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(OSError, match="build the extension"):
        open_region(good.fd, ID, COUNTER)


def test_absent_is_the_empty_tuple(good: File) -> None:
    for name in READERS:
        assert good.open(name).get(b"users", b"none", NOW) == ABSENT == ()
