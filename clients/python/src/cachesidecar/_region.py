"""The shared memory: values that the sidecar publishes and this process maps.

clients/c/README.md has the layout and the rules. The extension reads a region in C; this
module reads it in Python, and chooses between the two. Both trust nothing in the region. A
region whose file is truncated by the sidecar's user ends the process, as it does any client.
"""

import mmap
import os
import platform
import stat
import sys
import threading
import time
from struct import Struct, error as StructError
from typing import Callable, Dict, NamedTuple, Optional, Protocol, Tuple, TypeVar, Union

from ._hash import xxh3_64

__all__ = ["ABSENT", "Found", "PureRegion", "Region", "open_region"]

ABSENT: Tuple[()] = ()  # the origin has no such key
Found = Union[None, Tuple[()], Tuple[bytes, int, int, int]]  # None: ask the sidecar

_MAGIC = 0x0A0D6D656D687363
_MIN_SIZE, _MAX_SIZE = 1 << 20, 1 << 40
_MAX_VALUE, _MAX_NAMESPACE = 16384, 64
_INT64_MAX = (1 << 63) - 1
_CLOCKS = 2_000_000  # ns by which two readings of the boot clock may differ
_MS = 1_000_000

# Places, in words of 8 bytes.
_AT_SIZE, _AT_BUCKETS, _AT_LINES, _AT_EPOCH, _AT_ID, _AT_BOUND = 2, 3, 4, 5, 6, 7
_AT_STATE, _AT_COUNTER, _AT_TAIL = 16, 24, 32
_AT_NAMES, _NAME, _SLOTS = 512, 16, 256
_NS_GENERATION, _NS_BOUND, _NS_SEED, _NS_LENGTH, _NS_NAME = 1, 2, 3, 4, 5
_AT_OWNERS, _OWNERS, _AT_PARTS, _AT_INDEX = 4608, 256, 5120, 21504
_SERVING = 1

_HEAD = Struct("<7QIIIIIIQ")
_HEAD_SIZE, _SUMMED = 88, 80
_LINE = 64
_POSITION = (1 << 48) - 1

_MEMO_BYTES = 16 << 20  # of keys, hashes and values that are kept, with what Python needs for each
_MEMO_EACH = 600
_NOTHING = memoryview(b"")
_AGAIN = 10 * _MS  # a namespace that is not in the region is not looked for so long
_NAMESPACES = 1024  # places that are kept, also of names that are not in the region


class Region(Protocol):
    """A mapped region. Both readers have this interface, and may be used by several threads."""

    @property
    def id(self) -> int: ...

    @property
    def epoch(self) -> int:
        """The epoch of the sidecar's process. Once a HELLO names another one, the region is outdated."""

    @property
    def closed(self) -> bool:
        """Whether the sidecar has ended the region, or close was called. Nothing is found in it."""

    def get(self, namespace: bytes, key: bytes, now_ns: Optional[int] = None, /) -> Found:
        """Returns (value, flags, version, ttl_ms), ABSENT, or None: ask the sidecar.

        now_ns is the boot clock, read before the call; without it the call reads it.
        """

    def close(self) -> None: ...


class _Entry(NamedTuple):
    """An entry that was copied and had the right checksum, and where its words are."""

    slot: int  # of the index
    word: int  # in it
    position: int
    certified: int  # of its owner
    bound: int
    partition: int
    partition_generation: int
    generation: int
    ends: int
    found: Union[Tuple[()], Tuple[bytes, int, int, int]]


_Kept = TypeVar("_Kept")


class _Place:
    """Where a namespace is, and what was read in it."""

    def __init__(self, slot: int, incarnation: int, seed: int, again: int) -> None:
        self.slot = slot
        self.names = _AT_NAMES + _NAME * slot
        self.incarnation = incarnation  # zero: it is not in the region
        self.seed = seed
        self.again = again
        # Entries by key. An entry never changes once the index has named it, and a position
        # never repeats. So while the index names the same position, and tail is not above
        # it, the bytes there are those whose checksum was right: to copy and sum them again
        # would find the same. All else that a read checks may change, and is checked anew.
        # It would be wrong to skip the index: a withdrawal clears its word first, and only
        # then, and at leisure, erases the bytes. It would be wrong to keep entries beyond
        # the region or the incarnation: positions, slots and generations begin anew.
        self.memo: Dict[bytes, _Entry] = {}
        # The hash of a key depends on the seed alone.
        self.hashes: Dict[bytes, int] = {}


def _boot_clock() -> Callable[[], int]:
    clock, read = time.CLOCK_BOOTTIME, time.clock_gettime_ns
    return lambda: read(clock)


class PureRegion:
    """Reads a region in Python.

    Its loads are plain ones, in the order of the program: memoryview copies a word of 8 bytes
    with one instruction. Only x86-64 keeps the order of loads by itself, so on other machines
    the extension is needed.
    """

    def __init__(self, fd: int, id: int, counter: int, /) -> None:
        if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64") or sys.maxsize < 1 << 32:
            raise OSError(
                f"the shared memory is read without the extension only on Linux on x86-64, not on "
                f"{sys.platform} on {platform.machine()}: install a C compiler and build the extension"
            )
        self._now = _boot_clock()
        # Guards what is kept. Nothing waits for it: a child of fork may find it locked for ever.
        self._lock = threading.Lock()
        self._kept = 0  # bytes in memos
        self._places: Dict[bytes, _Place] = {}
        self._map(fd)
        words = self._words
        self._id, self._epoch = words[_AT_ID], words[_AT_EPOCH]
        if self._id != id or words[_AT_COUNTER] < counter:
            have = f"region {self._id} at {words[_AT_COUNTER]}"
            self.close()
            raise ValueError(f"the shared memory is {have}, not region {id} at {counter} or later")

    def _map(self, fd: int) -> None:
        status = os.fstat(fd)
        size = status.st_size
        if not stat.S_ISREG(status.st_mode) or not _MIN_SIZE <= size <= _MAX_SIZE or size % 8 != 0:
            raise ValueError(f"the shared memory is no file of {_MIN_SIZE} bytes or more: it has {size}")
        # mmap keeps a descriptor of its own until the region is closed.
        mapping = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)
        try:
            mapping.madvise(mmap.MADV_DONTDUMP)  # best effort: not in core dumps
        except OSError:
            pass
        self._bytes = memoryview(mapping)  # keeps the mapping
        self._words = self._bytes.cast("Q")
        words, self._size = self._words, size
        buckets, lines = words[_AT_BUCKETS], words[_AT_LINES]
        self._mask, self._lines = buckets - 1, lines
        self._log = 8 * _AT_INDEX + 64 * buckets
        if (
            words[0] != _MAGIC
            or words[1] != 1
            or words[_AT_SIZE] != size
            or buckets == 0
            or buckets & (buckets - 1) != 0
            or lines < 4096
            or self._log + _LINE * lines > size
        ):
            layout = words[1]
            self.close()
            raise ValueError(f"the shared memory of {size} bytes is no region of layout 1: its layout is {layout}")

    @property
    def id(self) -> int:
        return self._id

    @property
    def epoch(self) -> int:
        return self._epoch

    @property
    def closed(self) -> bool:
        try:
            return self._words[_AT_STATE] != _SERVING
        except IndexError:  # close was called
            return True

    def close(self) -> None:
        """Ends the use of the region. It is unmapped once no get of another thread is under way."""
        self._words, self._bytes = _NOTHING.cast("Q"), _NOTHING
        self._forget()
        self._places.clear()

    def get(self, namespace: bytes, key: bytes, now_ns: Optional[int] = None, /) -> Found:
        now = self._now() if now_ns is None else now_ns  # before all that follows
        try:
            place = self._places.get(namespace)
            if place is None or place.incarnation == 0 and now >= place.again:
                place = self._find(namespace, now)
            words = self._words
            if place.incarnation == 0:
                return None
            if words[place.names] != place.incarnation:
                self._places.pop(namespace, None)  # the next read looks it up again
                return None
            entry = place.memo.get(key)
            if entry is None or words[entry.slot] != entry.word:
                entry = self._read(place, key, now)
            elif not self._current(place, entry, now):
                return None
        except (IndexError, StructError):  # close was called meanwhile
            return None
        if entry is None:
            return None
        found, ends = entry.found, entry.ends
        if ends == 0 or not found:
            return found
        return found[0], found[1], found[2], max(1, (ends - now) // _MS)

    def _current(self, place: _Place, e: _Entry, now: int) -> bool:
        """Tells whether an entry that has been copied may be served. The order matters."""
        words = self._words
        certified = words[e.certified]  # before all that follows
        bound = words[e.bound]
        age = now - certified
        return (
            0 < certified  # one beyond int64 is far ahead of now
            and bound <= _INT64_MAX
            and -_CLOCKS <= age < bound - _CLOCKS
            and words[e.partition] == e.partition_generation
            and words[place.names + _NS_GENERATION] == e.generation
            and words[place.names] == place.incarnation
            and words[_AT_STATE] == _SERVING
            and (e.ends == 0 or now + _CLOCKS < e.ends <= _INT64_MAX)
            and words[e.slot] == e.word
            and words[_AT_TAIL] <= e.position
        )

    def _find(self, namespace: bytes, now: int) -> _Place:
        """Looks a namespace up by its name."""
        words, place = self._words, None
        n = len(namespace)
        for slot in range(_SLOTS if n <= _MAX_NAMESPACE else 0):
            at = _AT_NAMES + _NAME * slot
            incarnation, seed = words[at], words[at + _NS_SEED]
            if incarnation == 0 or words[at + _NS_LENGTH] != n:
                continue
            name = self._bytes[8 * (at + _NS_NAME) : 8 * (at + _NS_NAME) + n].tobytes()
            if name == namespace and words[at] == incarnation:
                place = _Place(slot, incarnation, seed, 0)
                break
        if place is None:
            place = _Place(_SLOTS, 0, 0, now + _AGAIN)
        if len(self._places) >= _NAMESPACES:
            self._forget()
            self._places.clear()
        self._places[namespace] = place
        return place

    def _read(self, place: _Place, key: bytes, now: int) -> Optional[_Entry]:
        """Copies an entry, asks whether it may be served, and keeps it."""
        words, n = self._words, len(key)
        hash = place.hashes.get(key)
        if hash is None:
            hash = xxh3_64(key, place.seed)
            self._keep(place.hashes, key, hash, n)
        tag = hash >> 32 & 0xFFFF
        slot = _AT_INDEX + 8 * (hash & self._mask)
        for at, word in enumerate(words[slot : slot + 8].tolist(), slot):
            if word != 0 and word >> 48 == tag:
                break
        else:
            return None
        position = word & _POSITION
        start = self._log + _LINE * (position % self._lines)
        if self._size - start < _HEAD_SIZE:
            return None
        head = self._bytes[start : start + _HEAD_SIZE].tobytes()
        (own, of, incarnation, generation, partition_generation, ends, version, names_slot, owner, flags, key_length,
         length, kind, checksum) = _HEAD.unpack(head)  # fmt: skip
        if (
            own != position
            or of != hash
            or incarnation != place.incarnation
            or names_slot != place.slot
            or key_length != n
            or length > _MAX_VALUE
            or owner >= _OWNERS
        ):
            return None
        start += _HEAD_SIZE
        if self._size - start < n + length:
            return None
        if self._bytes[start : start + n].tobytes() != key:
            return None
        value = self._bytes[start + n : start + n + length].tobytes()
        entry = _Entry(
            at, word, position, _AT_OWNERS + owner, _AT_BOUND if owner == 0 else place.names + _NS_BOUND,
            _AT_PARTS + (hash >> 50), partition_generation, generation, ends,
            ABSENT if kind == 1 else (value, flags, version, 0),
        )  # fmt: skip
        if not self._current(place, entry, now):
            return None
        if xxh3_64(value, xxh3_64(key, xxh3_64(head[:_SUMMED], 0))) != checksum:
            return None
        self._keep(place.memo, key, entry, n + length)
        return entry

    def _keep(self, memo: Dict[bytes, _Kept], key: bytes, what: _Kept, size: int) -> None:
        """Keeps something of a size. All that was kept is dropped if it is too much."""
        if self._lock.acquire(blocking=False):
            self._kept += size + _MEMO_EACH
            if self._kept > _MEMO_BYTES:
                self._forget()
                self._kept = size + _MEMO_EACH
            memo[key] = what
            self._lock.release()

    def _forget(self) -> None:
        for place in list(self._places.values()):
            place.memo.clear()
            place.hashes.clear()


def open_region(fd: int, id: int, counter: int) -> Region:
    """Maps a region, which must have an id and have counted so far. The descriptor stays the caller's.

    OSError and ValueError say that it cannot be used.
    """
    if os.environ.get("CACHESIDECAR_PURE") != "1":
        try:
            from ._native import Region as Native
        except ImportError:  # built without a compiler
            return PureRegion(fd, id, counter)
        return Native(fd, id, counter)
    return PureRegion(fd, id, counter)
