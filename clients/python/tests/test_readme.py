"""Runs every block of README.md, in order, against a real sidecar."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Dict

import pytest

README = Path(__file__).resolve().parent.parent / "README.md"
SOCKET = os.environ.get("CACHESIDECAR_SOCKET", "")


@pytest.mark.skipif(not SOCKET, reason="set CACHESIDECAR_SOCKET to the socket of a sidecar, or run the conformance suite")
def test_tour() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.M | re.S)
    assert len(blocks) >= 6
    names: Dict[str, Any] = {"__name__": "tour"}
    for n, block in enumerate(blocks):
        exec(compile(block, f"README.md, block {n + 1}", "exec"), names)


def test_every_setting_is_in_the_table() -> None:
    import inspect

    from cachesidecar import AsyncClient, Client

    text = README.read_text()
    settings = list(inspect.signature(Client).parameters)
    assert settings == list(inspect.signature(AsyncClient).parameters)
    missing = [s for s in settings if f"`{s}`" not in text]
    assert not missing


def test_the_table_has_the_defaults() -> None:
    import dataclasses

    from cachesidecar._settings import Settings  # conftest.py changes the defaults of Client

    words = {"found": None, "none": None, "true": True, "0, none": 0}
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| ([^|]+) \|", README.read_text().split("## Settings")[1], re.M)
    told: Dict[str, Any] = {}
    for names, default in rows:
        for name in re.findall(r"\w+", names):
            number = default.strip("`").replace(",", "").removesuffix(" s")
            told[name] = words[default] if default in words else float(number) if number[0].isdigit() else number
    for field in dataclasses.fields(Settings):
        want = told[field.name]
        assert want == (field.default or None if want is None else field.default), field.name


def test_the_clients_are_in_parity() -> None:
    import inspect

    from cachesidecar import AsyncClient, Client

    def methods(kind: Any) -> Dict[str, Any]:
        return {
            name: inspect.signature(m).parameters for name, m in vars(kind).items()
            if not name.startswith("_") and callable(m)
        }

    sync, aio = methods(Client), methods(AsyncClient)
    assert sync.keys() == aio.keys()
    for name in sync:
        assert list(sync[name]) == list(aio[name]), name
