"""What has become of each key of a call of several keys. It is pure."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, NamedTuple

from . import _calls
from ._calls import Key
from .errors import BadRequestError, CacheError, of_several


class Results(NamedTuple):
    """What a call of several keys has brought, with partial=True: the results, and the errors of the other keys."""

    values: Dict[Key, Any]
    errors: Dict[Key, CacheError]


class Batch:
    """The results and the errors of a call, by the caller's own keys."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self.values: Dict[Key, Any] = {}
        self.errors: Dict[Key, CacheError] = {}
        self.given: Dict[bytes, List[Key]] = {}  # what can be asked for; "a" and b"a" are one key
        for key in keys:
            try:
                self.given.setdefault(_calls.key_bytes(key), []).append(key)
            except BadRequestError as e:
                self.errors[key] = e

    def done(self, key: bytes, result: Any) -> None:
        for one in self.given[key]:
            self.values[one] = result

    def failed(self, keys: Iterable[bytes], error: CacheError) -> None:
        """Note why keys have no result. One of them that has a result keeps it."""
        for key in keys:
            for one in self.given[key]:
                if one not in self.values:
                    self.errors[one] = error

    def pages(self, size: int) -> List[List[bytes]]:
        """Return the keys that can be asked for, in pages."""
        keys = list(self.given)
        return [keys[at : at + size] for at in range(0, len(keys), size)]

    def decode(self) -> None:
        """Put the values in place of their items."""
        for key, item in list(self.values.items()):
            try:
                self.values[key] = item.value
            except CacheError as e:
                del self.values[key]
                self.errors[key] = e

    def result(self, partial: bool) -> Any:
        """Return what the caller is given, or raise the error that carries it."""
        if partial:
            return Results(self.values, self.errors)
        if self.errors:
            raise of_several(self.values, self.errors)
        return self.values
