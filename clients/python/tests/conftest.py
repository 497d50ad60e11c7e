"""Lets the tests import the package from src, and each other's helpers."""

import os
import sys

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
