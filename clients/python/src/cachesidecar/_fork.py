"""Fork: a child begins anew with what it inherits.

The child has the forking thread only, and locks that other threads of the parent may have held. It closes its copies
of the parent's descriptors, which does not end the parent's connections.
"""

from __future__ import annotations

import os
import weakref
from typing import Any

_clients: "weakref.WeakSet[Any]" = weakref.WeakSet()


def remember(client: Any) -> None:
    """Call client.forked() in each child that is forked from now on."""
    _clients.add(client)


def _forked() -> None:
    for client in list(_clients):
        client.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
