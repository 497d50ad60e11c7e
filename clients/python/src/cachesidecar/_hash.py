"""xxh3, the 64-bit hash of xxHash: of keys, and of what stands in the shared memory.

The extension has it in C; this module has it in Python, for where there is no extension. A
key of 20 bytes takes microseconds here, a value of 16 KiB a quarter of a millisecond.
"""

import os
from functools import lru_cache
from operator import mul
from struct import Struct, unpack_from
from typing import Callable, List, Tuple

__all__ = ["key_hash", "namespace_seed", "partition", "xxh3_64"]

_M64 = 0xFFFFFFFFFFFFFFFF
_M32 = 0xFFFFFFFF
_SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e"
    "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)
_P32_1, _P32_2, _P32_3 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
_P64_1, _P64_2, _P64_3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_P64_4, _P64_5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5

_STRIPE = 64  # bytes
_STRIPES = 16  # in a block: the secret moves 8 bytes with each
_BLOCK = _STRIPE * _STRIPES


def _at(place: int) -> int:
    return int.from_bytes(_SECRET[place : place + 8], "little")


# The numbers of the secret that short keys use.
_S4 = (_at(0) & _M32) ^ (_at(4) & _M32)
_S8 = _at(8) ^ _at(16)
_S24, _S40, _S56 = _at(24) ^ _at(32), _at(40) ^ _at(48), _at(56) ^ _at(64)
_PAIRS = tuple((_at(i), _at(i + 8)) for i in range(0, 128, 16))
_PAIRS_LATER = tuple((_at(i + 3), _at(i + 11)) for i in range(0, 112, 16))
_PAIR_LAST = (_at(119), _at(127))
_LANES = Struct("<8Q")


def _avalanche(h: int) -> int:
    h = ((h ^ h >> 37) * 0x165667919E3779F9) & _M64
    return h ^ h >> 32


def _avalanche64(h: int) -> int:
    h = ((h ^ h >> 33) * _P64_2) & _M64
    h = ((h ^ h >> 29) * _P64_3) & _M64
    return h ^ h >> 32


def _fold(a: int, b: int) -> int:
    product = a * b
    return (product & _M64) ^ (product >> 64)


def _mix(low: int, high: int, secret: Tuple[int, int], seed: int) -> int:
    return _fold(low ^ ((secret[0] + seed) & _M64), high ^ ((secret[1] - seed) & _M64))


def _short(data: bytes, n: int, seed: int) -> int:
    if n > 8:
        low = int.from_bytes(data[:8], "little") ^ ((_S24 + seed) & _M64)
        high = int.from_bytes(data[n - 8 :], "little") ^ ((_S40 - seed) & _M64)
        swapped = int.from_bytes(low.to_bytes(8, "little"), "big")
        return _avalanche((n + swapped + high + _fold(low, high)) & _M64)
    if n >= 4:
        seed ^= int.from_bytes((seed & _M32).to_bytes(4, "little"), "big") << 32
        v = int.from_bytes(data[n - 4 :], "little") + (int.from_bytes(data[:4], "little") << 32)
        h = v ^ ((_S8 - seed) & _M64)
        h ^= (h << 49 | h >> 15) & _M64 ^ (h << 24 | h >> 40) & _M64
        h = (h * 0x9FB21C651E98DF25) & _M64
        h = ((h ^ ((h >> 35) + n)) * 0x9FB21C651E98DF25) & _M64
        return h ^ h >> 28
    if n > 0:
        v = data[0] << 16 | data[n >> 1] << 24 | data[n - 1] | n << 8
        return _avalanche64(v ^ ((_S4 + seed) & _M64))
    return _avalanche64(seed ^ _S56)


def _middle(data: bytes, n: int, seed: int) -> int:
    words = unpack_from("<%dQ" % (n // 16 * 2), data)
    last = unpack_from("<2Q", data, n - 16)
    h = n * _P64_1
    if n <= 128:
        back = unpack_from("<%dQ" % (n // 16 * 2), data, n % 16)  # the same, counted from the end
        for i in range((n - 1) // 32 + 1):
            h += _mix(words[2 * i], words[2 * i + 1], _PAIRS[2 * i], seed)
            end = len(back) - 2 * i
            h += _mix(back[end - 2], back[end - 1], _PAIRS[2 * i + 1], seed)
        return _avalanche(h & _M64)
    for i in range(8):
        h += _mix(words[2 * i], words[2 * i + 1], _PAIRS[i], seed)
    h = _avalanche(h & _M64)
    for i in range(8, n // 16):
        h += _mix(words[2 * i], words[2 * i + 1], _PAIRS_LATER[i - 8], seed)
    return _avalanche((h + _mix(last[0], last[1], _PAIR_LAST, seed)) & _M64)


@lru_cache(maxsize=64)
def _secret_of(seed: int) -> Tuple[int, bytes]:
    """Returns the secret for a seed, and the number that a block is combined with."""
    words = []
    for i in range(0, 192, 16):
        words += [(_at(i) + seed) & _M64, (_at(i + 8) - seed) & _M64]
    secret = b"".join(w.to_bytes(8, "little") for w in words)
    block = b"".join(secret[8 * i : 8 * i + _STRIPE] for i in range(_STRIPES))
    return int.from_bytes(block, "little"), secret


def _stripes(acc: List[int], data: bytes, secret: int) -> None:
    """Adds up to a block of stripes. Between two scrambles all is sums, so lanes are added one by one."""
    n = len(data)
    keyed = (int.from_bytes(data, "little") ^ (secret & ((1 << 8 * n) - 1))).to_bytes(n, "little")
    halves = unpack_from("<%dI" % (n // 4), keyed)
    words = unpack_from("<%dQ" % (n // 8), data)
    for i in range(8):
        products = sum(map(mul, halves[2 * i :: 16], halves[2 * i + 1 :: 16]))
        acc[i] = (acc[i] + products + sum(words[i ^ 1 :: 8])) & _M64


def _long(data: bytes, n: int, seed: int) -> int:
    block, secret = _secret_of(seed)
    acc = [_P32_3, _P64_1, _P64_2, _P64_3, _P64_4, _P32_2, _P64_5, _P32_1]
    scramble = _LANES.unpack_from(secret, 128)
    end = (n - 1) // _STRIPE * _STRIPE
    for i in range(0, end, _BLOCK):
        part = data[i : min(i + _BLOCK, end)]
        _stripes(acc, part, block)
        if len(part) == _BLOCK:
            acc = [((a ^ a >> 47 ^ s) * _P32_1) & _M64 for a, s in zip(acc, scramble)]
    _stripes(acc, data[n - _STRIPE :], int.from_bytes(secret[121 : 121 + _STRIPE], "little"))
    h, merge = n * _P64_1, _LANES.unpack_from(secret, 11)
    for i in range(0, 8, 2):
        h += _fold(acc[i] ^ merge[i], acc[i + 1] ^ merge[i + 1])
    return _avalanche(h & _M64)


def xxh3_64_pure(data: bytes, seed: int = 0) -> int:
    """Returns xxh3 of data, computed in Python."""
    n = len(data)
    if n <= 16:
        return _short(data, n, seed)
    if n <= 240:
        return _middle(data, n, seed)
    return _long(data, n, seed)


def _choose() -> Callable[[bytes, int], int]:
    if os.environ.get("CACHESIDECAR_PURE") != "1":
        try:
            from ._native import xxh3_64 as native
        except ImportError:  # built without a compiler
            return xxh3_64_pure
        return native
    return xxh3_64_pure


xxh3_64 = _choose()  # of some bytes, with a seed of 64 bits


def namespace_seed(namespace: bytes, seed: int) -> int:
    """Returns the seed of a namespace's keys. seed is that of HELLO's answer."""
    return xxh3_64(namespace, seed)


def key_hash(key: bytes, seed: int) -> int:
    """Returns the hash of a key. seed is that of the key's namespace."""
    return xxh3_64(key, seed)


def partition(key_hash: int) -> int:
    """Returns the partition of a key's hash: its leading 14 bits."""
    return key_hash >> 50
