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

from cachesidecar import BadRequestError, EncodingError, TooLargeError, _bounds, _encode
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
    """Both ways to look at a value as msgpack."""
    if request.param == "extension":
        extension()
    monkeypatch.setenv("CACHESIDECAR_PURE", "1" if request.param == "pure" else "")
    look, glance, collide = _bounds.choose()
    monkeypatch.setattr(_bounds, "collide", collide)
    monkeypatch.setattr(_encode, "look", look)
    monkeypatch.setattr(_encode, "glance", glance)


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
    look, rnd = extension().look, random.Random(7)
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
        found = look(packed)
        seen.add(found)
        assert found == 1 or (found == 0) == _encode._keys_are_plain(value), value
        assert look(packed[:-1]) == 3 and look(packed + b"\0") == 4
    assert seen == {0, 1, 2}


def test_looks_at_random_bytes() -> None:
    """All ways to look agree, also on bytes that are no value."""
    rnd = random.Random(8)
    seen: List[int] = []
    for i in range(20000):
        data = bytes(rnd.choices(b"\x00\x80\x81\x91\x92\xa2\xc0\xc1\xc4\xc8\xcd\xd5\xd9\xdc\xde\xdf", k=i % 40))
        found = extension().look(data)
        assert _bounds._walk(data) == max(found, 1) or found == 2, data
        assert _bounds._padding() < 0 or _bounds._library_skips(data, _bounds._padding()) == (found <= 2), data
        assert (extension().glance(data), _bounds._glance(data)) == (0, 0), data
        seen.append(found)
    assert {0, 2, 3, 4, 6} <= set(seen)


NESTED: Any = 1
for _ in range(65):
    NESTED = [NESTED]
DEEP: Any = {"k": 1}
for _ in range(64):
    DEEP = {"a": DEEP}
WIDE = [None] * ((1 << 20) + 1)


def test_the_deepest_and_the_largest(each: None) -> None:
    for value in (NESTED[0], DEEP["a"], WIDE[1:], [WIDE[:50], [WIDE[54:]]], {i: i for i in range(1 << 19)}):
        data, flags = encode(value)
        assert decode(b"k", data, flags) == value


@pytest.mark.parametrize("value, error, place", [
    (NESTED, BadRequestError, r"^the value(\[0\]){30}\[…\](\[0\]){33} is deeper than 64 levels.* JSON$"),
    ([1, {"a": NESTED[0]}], BadRequestError, r"^the value\[1\]\['a'\]\[0\].*deeper than 64"),
    (DEEP, BadRequestError, r"^the value\['a'\]\['a'\].*deeper than 64"), (CYCLE, BadRequestError, "contains itself"),
    ([CYCLE, CYCLE], BadRequestError, "contains itself"), (WIDE, TooLargeError, "1,048,576 elements.*in parts"),
    ([{"a": WIDE[:400_000]}, WIDE[:700_000]], TooLargeError, "1,048,576 elements"),
    ([{}] * ((1 << 20) + 1), TooLargeError, "elements"), ({i: 1 for i in range(1 << 20)}, TooLargeError, "elements"),
])
def test_deeper_and_larger_ones_are_refused(each: None, value: Any, error: Any, place: str) -> None:
    with pytest.raises(error, match=place) as raised:
        encode(value)
    assert len(str(raised.value)) < 400
    try:
        data = msgpack.packb(value)
    except ValueError:  # it contains itself
        return
    with pytest.raises(EncodingError, match="deeper than 64|1,048,576 elements"):
        decode(b"k", data, _encode.MSGPACK)


def collisions(count: int, size: int) -> List[int]:
    """Return integers that a dict of so many places looks for in many of them, where others are."""
    slots = [0]
    while len(slots) < count // 2:
        slots.append((5 * slots[-1] + 1) % size)  # where the dict looks after the one before
    keys, taken = list(slots), set(slots[: count // 4])
    for key in (slot + more * size for more in range(1, size) for slot in slots):
        slot, rest = key % size, key
        while slot in taken and rest:
            rest >>= 5
            slot = (5 * slot + rest + 1) % size
        if slot in taken:
            keys.append(key)
            if len(keys) == count:
                break
    return keys


def test_keys_that_collide_are_refused(each: None) -> None:
    """Anyone can tell the hash of an integer: such keys cost the square of their number, minutes for a megabyte."""
    keys = dict.fromkeys(collisions(1300, 2048), "x" * 12)
    for value in (keys, [{"a": {"b": keys}}]):
        data = msgpack.packb(value)
        assert len(data) > _encode._SMALL
        with pytest.raises(EncodingError, match="chosen to collide"):
            decode(b"k", data, _encode.MSGPACK)


def test_other_keys_do_not_collide(each: None) -> None:
    rnd = random.Random(9)
    for keys in (
        range(9000), range(-9000, 0), range(0, 9000 << 20, 1 << 20), range(0, 9000 * 1000, 1000),
        [rnd.getrandbits(63) for _ in range(9000)], [*range(5000), *map(str, range(5000, 9000))],
        [i * i for i in range(9000)], [(1 << 64) - 1 - i for i in range(9000)],
    ):
        value = [dict.fromkeys(keys, "x"), {1: 2}]
        data, flags = encode(value)
        assert len(data) > _encode._SMALL and decode(b"k", data, flags) == value
