"""Lets the tests import the package from src, and each other's helpers."""

import os
import sys
import threading
from typing import Iterator

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (os.path.join(os.path.dirname(HERE), "src"), HERE):
    if folder not in sys.path:
        sys.path.insert(0, folder)

import cachesidecar  # noqa: E402
from cachesidecar import _doubt  # noqa: E402

# On a busy machine a connection, or an answer, takes longer than the defaults allow.
for kind in (cachesidecar.Client, cachesidecar.AsyncClient):
    defaults = kind.__init__.__kwdefaults__
    assert defaults is not None
    defaults.update(connect_timeout=10.0, timeout=20.0)
_doubt.HESITATION = 20.0


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """A client that a test leaves open would be found by another one, which counts threads."""
    yield
    assert not [t for t in threading.enumerate() if t.name.startswith("cachesidecar")]
