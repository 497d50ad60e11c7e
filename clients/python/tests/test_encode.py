"""What can be stored: what every language reads, and what comes back as it was."""

from __future__ import annotations

import collections
import datetime
import enum
import random
from typing import Any, List

import msgpack
import pytest
from raw import extension

from cachesidecar import BadRequestError, TooLargeError, _encode
from cachesidecar._encode import decode, encode


class Safe(str):
    pass


class Colour(enum.IntEnum):
    RED = 1


Point = collections.namedtuple("Point", "x y")
CYCLE: Any = []
CYCLE.append(CYCLE)
UTC = datetime.timezone.utc


@pytest.fixture(params=["extension", "pure"])
def each(request: Any, monkeypatch: Any) -> None:
    """Both ways to look at a map's keys."""
    if request.param == "extension":
        extension()
    monkeypatch.setenv("CACHESIDECAR_PURE", "1" if request.param == "pure" else "")
    monkeypatch.setattr(_encode, "_plain", _encode._choose())


@pytest.mark.parametrize("value", [
    b"", "text", 0, -(1 << 63), (1 << 63) - 1, None, True, 1.5, [], {}, [1, "a", b"b", None, [True, {}]],
    {"a": {"b": [1.5]}}, {1: "a", -2: "b"}, {1: 1, "a": 2, 1 << 63: 3}, bytearray(b"x"), [(1 << 64) - 1],
    [datetime.datetime(2020, 1, 2, 3, 4, 5, 600000, UTC)], {"k" * 300: "v" * 70000}, [b"x" * 70000] * 20,
    {str(i): i for i in range(70000)},
])
def test_comes_back(each: None, value: Any) -> None:
    data, flags = encode(value)
    assert decode(b"k", data, flags) == value


def test_a_tuple_comes_back_as_a_list(each: None) -> None:
    data, flags = encode({"a": (1, (2,))})
    assert decode(b"k", data, flags) == {"a": [1, [2]]}


@pytest.mark.parametrize("value, place", [
    ({(1, 2): "x"}, r"the value has the key \(1, 2\)"),
    ([{"a": {(1,): 2}}], r"the value\[0\]\['a'\] has the key \(1,\)"),
    ({None: 1}, "has the key None"), ({True: 1}, "has the key True"), ({b"k": 1}, "has the key b'k'"),
    ({1.5: 1}, "has the key 1.5"), ({1: "a", "1": "b"}, "has the keys 1 and '1'"),
    ({"__proto__": 1}, "has the key '__proto__'"), ({Safe("k"): 1}, "of type test_encode.Safe"),
    (Safe("x"), "the value is of type test_encode.Safe"), ([Safe("x")], r"the value\[0\] is of type test_encode.Safe"),
    (Colour.RED, "the value is of type test_encode.Colour"), ({"a": Colour.RED}, r"the value\['a'\] is of type"),
    (Point(1, 2), "the value is of type test_encode.Point"),
    ({"p": [Point(1, 2)]}, r"the value\['p'\]\[0\] is of type test_encode.Point"),
    (collections.OrderedDict(a=1), "the value is of type collections.OrderedDict"),
    ({1}, "the value is of type builtins.set"), (datetime.date(2020, 1, 1), "of type datetime.date"),
    (datetime.datetime(2020, 1, 1), "the value is a datetime without a time zone"),
    ([datetime.datetime(2020, 1, 1)], r"the value\[0\] is a datetime without"),
])
def test_is_refused(each: None, value: Any, place: str) -> None:
    with pytest.raises(TypeError, match=place + ".*store bytes, str, int"):
        encode(value)


def test_is_refused_otherwise(each: None) -> None:
    for too_large in (1 << 63, [1 << 64], {"a": -(1 << 63) - 1}):
        with pytest.raises(TooLargeError):
            encode(too_large)
    for bad in ("\ud800", ["\ud800"], CYCLE):
        with pytest.raises(BadRequestError):
            encode(bad)


def test_keys_of_random_values() -> None:
    """The extension says of packed maps what Python says of the maps."""
    keys, rnd = extension().keys, random.Random(7)
    scalars: List[Any] = [
        None, True, 1, -1, 1 << 40, -(1 << 40), (1 << 64) - 1, 1.5, "x", "y" * 40, "z" * 300, b"q", b"r" * 70000, 200,
        -70000,
    ]
    fit: List[Any] = ["a", "b", "c" * 40, "d" * 300, 1, 2, -5, 1 << 40]
    odd: List[Any] = [None, True, 1.5, b"k", "__proto__"]

    def make(depth: int) -> Any:
        kind = rnd.random()
        if depth == 0 or kind < 0.4:
            return rnd.choice(scalars)
        if kind < 0.6:
            return [make(depth - 1) for _ in range(rnd.choice([0, 1, 3, 17]))]
        n = rnd.choice([0, 1, 3, 20])
        return {rnd.choice(fit if rnd.random() < 0.98 else odd): make(depth - 1) for _ in range(n)}

    seen = set()
    for _ in range(3000):
        value = make(4)
        packed = msgpack.packb(value)
        found = keys(packed)
        seen.add(found)
        assert found == 1 or (found == 0) == _encode._keys_are_plain(value), value
        assert keys(packed[:-1]) == 2 and keys(packed + b"\0") == 2
    assert seen == {0, 1, 2}
    for _ in range(20000):
        keys(rnd.randbytes(rnd.randrange(40)))  # crashes with none
