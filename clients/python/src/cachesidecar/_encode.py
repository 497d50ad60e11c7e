"""Values and their bytes.

The low 8 bits of a value's flags name the encoding of its bytes, the same in every language; the upper 24 bits
are the app's. The functions are pure.
"""

from __future__ import annotations

import datetime
from typing import Any, Callable, Dict, Tuple

import msgpack

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
    if isinstance(value, bytes):
        return bytes(value), BYTES
    if isinstance(value, str):
        return _text(str.__str__(value)), TEXT
    if isinstance(value, int) and not isinstance(value, bool):
        return _integer(int(value)), INTEGER
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
        packed = msgpack.packb(value, datetime=True, default=_other)
    except OverflowError:
        raise TooLargeError(f"an integer within {_of(value)} needs more than 64 bits: store it as text") from None
    except UnicodeEncodeError as e:
        raise BadRequestError(f"a text within {_of(value)} is not Unicode ({e}): store bytes") from None
    except ValueError as e:
        if "recursion" in str(e).lower():
            raise BadRequestError(f"{_of(value)} is nested too deeply for msgpack: flatten it") from None
        raise TypeError(f"{_of(value)} cannot be stored ({e}): {_REMEDY}") from None
    assert isinstance(packed, bytes)
    return packed


_REMEDY = (
    "store bytes, str, int, or what msgpack has: None, bool, float, list, tuple, dict, and datetime with a time zone"
)


def _of(value: Any) -> str:
    return f"a value of type {type(value).__module__}.{type(value).__qualname__}"


def _other(value: Any) -> Any:
    if isinstance(value, datetime.datetime):
        raise TypeError("a datetime without a time zone cannot be stored: give it one, such as timezone.utc")
    if isinstance(value, int):
        raise TooLargeError(f"the integer {_short(value)} needs more than 64 bits: store it as text")
    raise TypeError(f"{_of(value)} cannot be stored: {_REMEDY}")


def _extension(code: int, data: bytes) -> Any:
    raise ValueError(f"extension {code}")


def _unpack(data: bytes) -> Any:
    # Without bounds of ours the library bounds each length by that of the input.
    return msgpack.unpackb(data, raw=False, timestamp=3, strict_map_key=False, ext_hook=_extension)


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


_RAW = "read its bytes and flags with get_item, or write it anew"


def shared(data: bytes, flags: int) -> bool:
    """Report whether the decoded value is immutable, so that several callers may have the same object."""
    return flags & 0xFF != MSGPACK
