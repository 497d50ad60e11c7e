"""The messages of docs/PROTOCOL.md as bytes. All functions are pure.

A frame is a length and one msgpack array, [id, op, timeout_ms, …]. A request is built from its tail, which is all
behind the id: the tail does not depend on the connection, so a call that is repeated keeps it.
"""

from __future__ import annotations

import struct
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import msgpack

from .errors import Malformed

HELLO, PING, GET, MGET, SET, DELETE, TOUCH, INCR, LEASE, FILL, FLUSH, STATS, MEMBERS = range(1, 14)
WATCH, LEAVING, SHARED, HITS, METAGET = 15, 23, 24, 25, 26

FRESH, NO_LOAD, STALE_OK, ACK_ALL, SOFT, CLUSTER, ALL = 1, 2, 4, 8, 16, 32, 64
ATTEST, ABANDON, SHARE = 128, 256, 8192
QUIET = 1 << 23
CREATE, UNSIGNED, DOWN, RETTL = 1 << 14, 1 << 15, 1 << 16, 1 << 18  # RETTL is METAGET's touch
CACHE_ONLY = 1 << 22

OK, MISS, LEASED, STALE, EXISTS, NOT_STORED = range(6)
TIMEOUT, BUSY = 21, 22
ABSENT, DEGRADED = 1, 2  # why a MISS

MODE_SET, MODE_ADD, MODE_REPLACE, MODE_CAS, MODE_APPEND, MODE_PREPEND = range(6)

#: The versions of the protocol that this client speaks.
VERSIONS = [1]

MAX_KEY, MAX_KEYS = 1024, 1024
MAX_HITS = 1 << 30  # of one kind in one report
MAX_TTL_MS, MAX_TIMEOUT_MS = 31_536_000_000, 3_600_000
#: The longest answer that is taken, in bytes: 16 MiB and one value, for MGET, and room for the rest.
MAX_ANSWER = 32 << 20

#: Calls have ids from here on: they are 5 bytes, and never those of HELLO, LEAVING and the PING of a doubt.
FIRST_ID, LAST_ID = 1 << 16, (1 << 32) - 1
HELLO_ID, LEAVING_ID, PING_ID = 1, 0, 2

NIL = b"\xc0"

_HEAD = struct.Struct(">IBBI")
_pack_head = _HEAD.pack
_U8, _U16, _U32, _U64 = (struct.Struct(f).pack for f in (">BB", ">BH", ">BI", ">BQ"))

Tail = Tuple[int, bytes]  # the number of its elements, and their bytes


def uint(n: int) -> bytes:
    """Encode an unsigned number, as short as it can be."""
    if n < 128:
        return _BYTE[n]
    if n < 1 << 8:
        return _U8(0xCC, n)
    if n < 1 << 16:
        return _U16(0xCD, n)
    if n < 1 << 32:
        return _U32(0xCE, n)
    return _U64(0xCF, n)


_BYTE = [bytes([n]) for n in range(256)]


def sint(n: int) -> bytes:
    """Encode a signed number of 64 bits."""
    if n >= 0:
        return uint(n)
    if n >= -32:
        return _BYTE[256 + n]
    packed = msgpack.packb(n)
    assert isinstance(packed, bytes)
    return packed


def binary(data: bytes) -> bytes:
    """Encode bytes."""
    n = len(data)
    if n < 256:
        return _BIN8[n] + data
    if n < 1 << 16:
        return _U16(0xC5, n) + data
    return _U32(0xC6, n) + data


_BIN8 = [bytes([0xC4, n]) for n in range(256)]


def text(value: str) -> bytes:
    """Encode a text."""
    packed = msgpack.packb(value)
    assert isinstance(packed, bytes)
    return packed


def array(items: Sequence[bytes]) -> bytes:
    """Encode an array of encoded elements."""
    n = len(items)
    head = _BYTE[0x90 + n] if n < 16 else _U16(0xDC, n) if n < 1 << 16 else _U32(0xDD, n)
    return head + b"".join(items)


def optional(n: int) -> bytes:
    """Encode a number whose default is zero."""
    return uint(n) if n else NIL


def tail(op: int, timeout_ms: int, *elements: bytes) -> Tail:
    """Return the tail of a request. Elements at its end that are nil are left out."""
    n = len(elements)
    while n and elements[n - 1] == NIL:
        n -= 1
    return n + 2, b"".join((_BYTE[op], uint(timeout_ms)) + elements[:n])


def frame(id: int, end: Tail) -> bytes:
    """Return a request with a tail of at most 14 elements."""
    n, data = end
    if id >= FIRST_ID:
        return _pack_head(len(data) + 6, 0x91 + n, 0xCE, id) + data
    head = uint(id)
    return struct.pack(">IB", len(data) + len(head) + 1, 0x91 + n) + head + data


def length(buffer: Union[bytes, bytearray], at: int, most: int = MAX_ANSWER) -> int:
    """Return the length of the message at a place, whose first 4 bytes are there."""
    n = int.from_bytes(buffer[at : at + 4], "big")
    if not 0 < n <= most:
        raise Malformed(f"what answers is no sidecar: it announces a message of {n} bytes")
    return n


def answer_id(buffer: Union[bytes, bytearray], at: int, end: int) -> int:
    """Return the id of the answer whose array begins at a place."""
    if end - at > 6 and buffer[at + 1] == 0xCE and 0x92 <= buffer[at] <= 0x9F:
        return int.from_bytes(buffer[at + 2 : at + 6], "big")
    answer = decode(bytes(buffer[at:end]))
    return int(answer[0])


def decode(message: bytes) -> List[Any]:
    """Decode an answer: [id, status, …]. Raise Malformed if it is none."""
    try:
        answer = msgpack.unpackb(
            message, raw=False, unicode_errors="surrogateescape", strict_map_key=False, max_ext_len=1 << 16
        )
    except Exception as e:  # msgpack raises errors of many types
        raise Malformed(f"what answers is no sidecar: its message is no msgpack ({e})") from None
    if type(answer) is not list or len(answer) < 2 or type(answer[0]) is not int or type(answer[1]) is not int:
        raise Malformed("what answers is no sidecar: its message is no array of an id, a status and more")
    return answer


def field(answer: Sequence[Any], at: int, kind: type) -> Any:
    """Return an element of an answer. Raise Malformed if it is missing, or of another type."""
    if len(answer) > at and type(answer[at]) is kind:
        return answer[at]
    what = repr(answer[at])[:80] if len(answer) > at else "nothing"
    raise Malformed(f"the sidecar's answer has {what} in place {at}, where {kind.__name__} belongs")


def data(answer: Sequence[Any], at: int) -> bytes:
    """Return an element that is bytes, also if it came as a text."""
    if len(answer) > at:
        value = answer[at]
        if type(value) is bytes:
            return value
        if type(value) is str:
            return value.encode("utf-8", "surrogateescape")
    return field(answer, at, bytes)  # type: ignore[no-any-return]


def hello(client: str, token: str, namespace: str) -> bytes:
    """Return the first request of a connection."""
    told = {"client": client, "ns": namespace, "token": token}
    greeting: Dict[str, Any] = {k: v for k, v in told.items() if v}
    body = msgpack.packb({**greeting, "v": VERSIONS})
    assert isinstance(body, bytes)
    return frame(HELLO_ID, tail(HELLO, 1000, body))


def namespace(name: Optional[str]) -> bytes:
    """Encode a namespace; None is the connection's default."""
    return NIL if name is None else text(name)
