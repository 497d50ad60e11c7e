"""Values and their bytes.

The low 8 bits of a value's flags name the encoding of its bytes, the same in every language; the upper 24 bits
are the app's. The functions are pure.
"""

from __future__ import annotations

import datetime
from typing import Any, Callable, Dict, NamedTuple, Tuple

import msgpack
from msgpack import unpackb

from ._bounds import DEEP, ELEMENTS, LEVELS, MANY, MIXED, UNFIT, WHY, from_pairs, glance, look
from .errors import BadRequestError, EncodingError, TooLargeError

BYTES, INTEGER, TEXT, MSGPACK = 0, 2, 16, 32

_MIN_INT, _MAX_INT = -(1 << 63), (1 << 63) - 1
_TIMESTAMP = -1
# msgpack's own bound, 100 MB, is above every max_value that is allowed.


def app_flags(flags: int) -> int:
    """Check an app's own flags, which are multiples of 256."""
    if flags & 0xFF or not 0 <= flags < 1 << 32:
        raise BadRequestError(
            f"flags of {flags:#x}: give a multiple of 256 below 2**32; the low 8 bits name the encoding"
        )
    return flags


def encode(value: Any) -> Tuple[bytes, int]:
    """Return a value's bytes and the mark of their encoding."""
    kind = type(value)
    if kind is bytes:
        return value, BYTES
    if kind is str:
        return _text(value), TEXT
    if kind is int:
        return _integer(value), INTEGER
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value), BYTES
    return _pack(value), MSGPACK


def _text(value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError as e:
        raise BadRequestError(f"a text that is not Unicode ({e}): encode it yourself and store bytes") from None


def _integer(value: int) -> bytes:
    if not _MIN_INT <= value <= _MAX_INT:
        raise TooLargeError(
            f"the integer {_short(value)}: give {_MIN_INT} to {_MAX_INT}, or store it as text"
        )
    return b"%d" % value


def _short(value: int) -> str:
    return str(value) if value.bit_length() < 256 else f"of {value.bit_length()} bits"


def _pack(value: Any) -> bytes:
    try:
        packed = msgpack.packb(value, datetime=True, strict_types=True, default=_other)
        assert isinstance(packed, bytes)
        found = look(packed)
        if found == DEEP:
            raise BadRequestError(_deep(value))
        if found == MANY:
            raise TooLargeError(f"{_of(value)} has more than {ELEMENTS:,} elements: store it as text, or in parts")
        if found == UNFIT or found == MIXED and not _keys_are_plain(value):
            raise _Unfit
    except _Unfit:
        raise TypeError(f"{_place(value)}: {_REMEDY}") from None
    except OverflowError:
        raise TooLargeError(f"an integer within {_of(value)} needs more than 64 bits: store it as text") from None
    except UnicodeEncodeError as e:
        raise BadRequestError(f"a text within {_of(value)} is not Unicode ({e}): store bytes") from None
    except ValueError as e:
        if "recursion" in str(e).lower():
            raise BadRequestError(_deep(value)) from None
        raise TypeError(f"{_of(value)} cannot be stored ({e}): {_REMEDY}") from None
    return packed


_REMEDY = (
    "store bytes, str, int, or what msgpack has: None, bool, float, list, tuple, dict with keys of str and int, and "
    "datetime with a time zone; of other types, also subclasses of these, make one of them first"
)


class _Unfit(Exception):
    """A value has something that cannot be stored, or would come back as something else."""


_CONTAINERS = frozenset((dict, list, tuple))


def _keys_are_plain(value: Any) -> bool:
    """Report whether clients in all languages can read the keys of all maps. A value that was packed has no cycle."""
    if type(value) not in _CONTAINERS:
        return True
    todo = [value]
    for one in todo:  # which grows
        if type(one) is dict:
            if not _plain_keys(one):
                return False
            one = one.values()
        todo.extend([v for v in one if type(v) in _CONTAINERS])
    return True


def _plain_keys(value: Dict[Any, Any]) -> bool:
    if "__proto__" in value:
        return False
    numbers = [k for k in value if type(k) is not str]
    return all(type(k) is int and str(k) not in value for k in numbers)


def _place(value: Any) -> str:
    """Say what in a value cannot be stored."""
    todo = [("the value", value)]
    for path, one in todo:
        kind = type(one)
        if kind is dict:
            for k, v in one.items():
                if type(k) is int and str(k) in one:
                    return f"{path} has the keys {k!r} and {str(k)!r}, which are one key in other languages"
                if k == "__proto__" or type(k) is not str and type(k) is not int:
                    return f"{path} has the key {k!r} of type {_name(type(k))}, which cannot be read again"
                todo.append((f"{path}[{k!r}]", v))
        elif kind is list or kind is tuple:
            todo.extend([(f"{path}[{i}]", v) for i, v in enumerate(one)])
        elif kind is datetime.datetime and one.tzinfo is None:
            return f"{path} is a datetime without a time zone"
        elif kind not in _KINDS:
            return f"{path} is of type {_name(kind)}"
    return _of(value) + " cannot be stored"


_KINDS = frozenset((bool, type(None), float, int, str, bytes, bytearray, memoryview, datetime.datetime))


def _deep(value: Any) -> str:
    """Say what in a value is too deep."""
    todo = [("the value", value, 0)]
    while todo:
        path, one, depth = todo.pop()
        if depth == LEVELS:
            path = path if len(path) <= 200 else f"{path[:100]}…{path[-100:]}"
            return f"{path} is deeper than {LEVELS} levels, as a value that contains itself is: {_FLATTEN}"
        parts = one.items() if type(one) is dict else enumerate(one)
        todo.extend([(f"{path}[{k!r}]", v, depth + 1) for k, v in parts if type(v) in _CONTAINERS])
    return f"{_of(value)} is too deep: {_FLATTEN}"


_FLATTEN = "store a deep one as text, such as JSON"


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _of(value: Any) -> str:
    return f"a value of type {_name(type(value))}"


def _other(value: Any) -> Any:
    if type(value) is tuple:
        return list(value)
    if type(value) is int:
        raise TooLargeError(f"the integer {_short(value)} needs more than 64 bits: store it as text")
    raise _Unfit


def _extension(code: int, data: bytes) -> Any:
    raise ValueError(f"extension {code}")


_SMALL = 16 << 10  # bytes: the keys of its maps cost 20 ms at most, however they are chosen


def _unpack(data: bytes) -> Any:
    # Without bounds of ours the library bounds each length by that of the input.
    if len(data) > LEVELS and (found := glance(data)) > UNFIT:
        raise ValueError(WHY[found])
    if len(data) <= _SMALL:
        return unpackb(data, timestamp=3, strict_map_key=False, ext_hook=_extension)
    try:
        return unpackb(data, timestamp=3, ext_hook=_extension)
    except ValueError:  # it may have a key that is an integer
        return unpackb(
            data, timestamp=3, strict_map_key=False, ext_hook=_extension, object_pairs_hook=from_pairs
        )


def _decimal(data: bytes) -> int:
    if len(data) > 20:  # the longest is 20 bytes: the sign and 19 digits
        raise ValueError("is too long")
    value = int(data)
    if b"%d" % value != data or not _MIN_INT <= value <= _MAX_INT:
        raise ValueError("is no decimal number of 64 bits")
    return value


_DECODERS: Dict[int, Callable[[bytes], Any]] = {
    BYTES: bytes,
    INTEGER: _decimal,
    TEXT: lambda data: data.decode(),
    MSGPACK: _unpack,
}


def decode(key: bytes, data: bytes, flags: int) -> Any:
    """Return the value of bytes that were stored with these flags."""
    mark = flags & 0xFF
    if mark == 0:
        return data
    if mark == TEXT:
        try:
            return data.decode()
        except UnicodeDecodeError as e:
            raise EncodingError(f"the value of {key!r} is marked as text and is none ({e}): {_RAW}") from None
    decoder = _DECODERS.get(mark)
    if decoder is None:
        raise EncodingError(f"the value of {key!r} has the unknown encoding {mark}: {_RAW}")
    try:
        return decoder(data)
    except Exception as e:  # msgpack raises errors of many types
        name = "an integer" if mark == INTEGER else "msgpack"
        raise EncodingError(f"the value of {key!r} is marked as {name} and is none ({e}): {_RAW}") from None


class Codec(NamedTuple):
    """How the values of a load become bytes and flags, and come back."""

    encode: Callable[[Any], Tuple[bytes, int]]
    decode: Callable[[bytes, bytes, int], Any]


PLAIN = Codec(encode, decode)

_RAW = "read its bytes and flags with get_item, or write it anew"


def shared(data: bytes, flags: int) -> bool:
    """Report whether the decoded value is immutable, so that several callers may have the same object."""
    return flags & 0xFF != MSGPACK
