"""Fork and exit. A child begins anew with what it inherits; what is left to report is reported before an exit.

The child has the forking thread only, and locks that other threads of the parent may have held. It closes its copies
of the parent's descriptors, which does not end the parent's connections.
"""

from __future__ import annotations

import atexit
import os
import weakref
from typing import Any

_clients: "weakref.WeakSet[Any]" = weakref.WeakSet()
_reporting: "weakref.WeakSet[Any]" = weakref.WeakSet()


def remember(client: Any) -> None:
    """Call client.forked() in each child that is forked from now on."""
    _clients.add(client)


def reports(client: Any) -> None:
    """Call client.forks() before each fork from now on, and client.exits() when the interpreter ends."""
    _reporting.add(client)


def _forks() -> None:
    for client in list(_reporting):
        client.forks()


def _exits() -> None:
    for client in list(_reporting):
        client.exits()


def _forked() -> None:
    for client in list(_clients):
        client.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_forks, after_in_child=_forked)
atexit.register(_exits)
