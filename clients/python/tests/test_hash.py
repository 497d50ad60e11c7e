"""xxh3 in Python and in C, held to vectors that the Go library made.

Each vector is [length, seed, hash]; byte i of the input is 131 i + 7, modulo 256.
"""

import json
import random
from pathlib import Path

import pytest
from raw import extension

from cachesidecar._hash import key_hash, namespace_seed, partition, xxh3_64_pure

VECTORS = json.loads((Path(__file__).parent / "data" / "xxh3.json").read_text())


@pytest.mark.parametrize("name", ["pure", "native"])
def test_vectors(name: str) -> None:
    hash = xxh3_64_pure if name == "pure" else extension().xxh3_64
    for length, seed, want in VECTORS:
        data = bytes((131 * i + 7) % 256 for i in range(length))
        assert f"{hash(data, int(seed, 16)):016x}" == want, (length, seed)


def test_any_bytes_hash_alike() -> None:
    source, native = random.Random(7), extension()
    for _ in range(2000):
        data, seed = source.randbytes(source.randrange(600)), source.getrandbits(64)
        assert xxh3_64_pure(data, seed) == native.xxh3_64(data, seed), (data.hex(), seed)


def test_key_hash_is_seeded_with_the_namespace() -> None:
    seed = namespace_seed(b"users", 5)
    assert seed == xxh3_64_pure(b"users", 5)
    assert key_hash(b"user:42", seed) == xxh3_64_pure(b"user:42", seed)
    assert partition(key_hash(b"user:42", seed)) == key_hash(b"user:42", seed) >> 50 < 16384
