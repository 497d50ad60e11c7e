"""How deep and how large a value is as msgpack, and what its keys cost: what its bytes claim, before they are believed.

The functions are pure.
"""

from __future__ import annotations

import functools
import os
from typing import Any, Callable, Dict, Iterable, List, Tuple

import msgpack

# The bounds of a value as msgpack, the same in all languages: arrays and maps within each other; items of arrays, keys
# and values of maps, of the whole value.
LEVELS, ELEMENTS = 64, 1 << 20

# What a look at a value as msgpack finds, the same as in _native.c: its keys are plain; they are to be looked at in
# the value; they are not plain. It ends early; more bytes follow; it is beyond a bound.
PLAIN, MIXED, UNFIT, CUT, REST, DEEP, MANY = range(7)
WHY = {
    CUT: "it ends early",
    REST: "further bytes follow",
    DEEP: f"it nests deeper than {LEVELS} levels",
    MANY: f"it has more than {ELEMENTS:,} elements",
}


def choose() -> Tuple[Callable[[bytes], int], Callable[[bytes], int], Callable[[List[Tuple[Any, Any]]], bool]]:
    """Return look, for what is written; glance, for what is read: it does not say all of the keys; and collide."""
    if os.environ.get("CACHESIDECAR_PURE") != "1":
        try:
            from ._native import collide, glance, look

            return look, glance, collide
        except ImportError:  # built without a compiler
            pass
    return _look, _glance, _collide


_HEADS = bytes([*range(0x80, 0xA0), *range(0xDC, 0xE0)])  # of arrays and maps


def _glance(data: bytes) -> int:
    # The library makes room for what arrays and maps claim to have: here for 8 MiB at most.
    heads = len(data) - len(data.translate(None, _HEADS))
    if heads <= LEVELS and heads * len(data) <= ELEMENTS:
        return PLAIN
    return _look(data)


def _look(data: bytes) -> int:
    if len(data) <= ELEMENTS and _padding() >= 0 and _library_skips(data, _padding()):
        return MIXED
    return _walk(data)


def _library_skips(data: bytes, padding: int) -> bool:
    """Report whether the library skips a value that is within so many arrays. It makes no room for what it skips."""
    try:
        unpacker = msgpack.Unpacker(read_size=64, max_buffer_size=padding + len(data))
        unpacker.feed(b"\x91" * padding)
        unpacker.feed(data)
        unpacker.skip()
        return bool(unpacker.tell() == padding + len(data))
    except Exception:  # of many types
        return False


@functools.lru_cache(maxsize=None)
def _padding() -> int:
    """Return how many arrays around a value leave it LEVELS of those that the library skips; -1 if none do.

    The library's bound differs between versions, so this finds it by halving.
    """
    if "fallback" in msgpack.Unpacker.__module__:
        return -1  # its bound is that of Python's stack
    deepest = b"\x91" * LEVELS + b"\xc0"
    low, high = 0, 1 << 16
    while high - low > 1:
        middle = (low + high) // 2
        if _library_skips(deepest, middle):
            low = middle
        else:
            high = middle
    return low if high < 1 << 16 else -1


# The bytes that follow the first one of an element. Negative: the bytes of a length, of the bytes that follow.
_FOLLOW = (
    [0] * 160 + list(range(32)) + [0, 0, 0, 0, -1, -2, -4, -1, -2, -4, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 2, 3, 5, 9, 17]
    + [-1, -2, -4, -2, -4, -2, -4] + [0] * 32
)


def _walk(data: bytes) -> int:
    """Look at a value without the library. It says nothing of the keys."""
    at, elements, left = 0, 0, 1  # elements that are to come
    ends: List[int] = []  # what is left where each of the arrays and maps ends that are around
    while left:
        if at >= len(data):
            return CUT
        c = data[at]
        at += 1
        left -= 1
        if c == 0xC1:
            return CUT
        follow = _FOLLOW[c]
        if follow < 0:
            width, follow = -follow, int.from_bytes(data[at : at - follow], "big")
            at += width
            if at > len(data):
                return CUT
        if 0x80 <= c < 0xA0 or 0xDC <= c < 0xE0:
            count = (c & 0x0F if c < 0xA0 else follow) << (c < 0x90 or c >= 0xDE)
            elements += count
            if elements > ELEMENTS:
                return MANY
            ends.append(left)
            if len(ends) > LEVELS:
                return DEEP
            left += count
        else:
            at += follow + (0xC7 <= c <= 0xC9)  # the type of an extension
        while ends and left == ends[-1]:
            ends.pop()
    return MIXED if at == len(data) else CUT if at > len(data) else REST


def _collide(pairs: List[Tuple[Any, Any]]) -> bool:
    """Report whether a dict of the pairs would search long for the places of its keys, at any size that it grows by."""
    hashes = [hash(key) for key, _ in pairs]
    size, count = 1024, 0
    while count < len(hashes):
        count = min(size * 2 // 3, len(hashes))  # of keys that a dict of this size has when it grows
        if _crowded(hashes[:count], size):
            return True
        size *= 2
    return False


def _crowded(hashes: List[int], size: int) -> bool:
    """Report whether a dict of some size meets used places more than 16 times a key. It searches as CPython's do."""
    used, mask, left = bytearray(size), size - 1, 16 * len(hashes)
    for h in hashes:
        place, perturb = h & mask, h & 0xFFFFFFFFFFFFFFFF
        while used[place]:
            if left == 0:
                return True
            left -= 1
            perturb >>= 5
            place = (place * 5 + perturb + 1) & mask
        used[place] = 1
    return False


look, glance, collide = choose()


def from_pairs(pairs: Iterable[Tuple[Any, Any]]) -> Dict[Any, Any]:
    """Return the dict of pairs, if it can be made in a time that the number of pairs tells.

    The hash of an integer is known, so an attacker can choose keys that a dict finds at the end of a long search.
    """
    pairs = list(pairs)
    if len(pairs) > 256 and collide(pairs):
        raise ValueError("the keys of a map are chosen to collide")
    return dict(pairs)
