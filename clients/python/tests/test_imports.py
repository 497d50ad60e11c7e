"""The modules import each other in one direction. An import within a function counts too, and one for types alone."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Iterator

import cachesidecar

FILES = {file.stem: file for file in Path(cachesidecar.__file__).parent.glob("*.py*")}


def imports(file: Path) -> Iterator[str]:
    """Yield the full names of what a module imports."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = "cachesidecar" if node.level else None
            yield from (".".join(filter(None, (package, node.module, alias.name))) for alias in node.names)


def test_no_module_imports_itself_by_however_many_others() -> None:
    modules = {}
    for name, file in FILES.items():
        parts = [(*full.split("."), "")[:2] for full in imports(file)]
        modules[name] = {one if one in FILES else "__init__" for package, one in parts if package == "cachesidecar"}
    assert {"client", "aio"} < modules["__init__"] and "_encode" in modules["_item"]
    TopologicalSorter(modules).prepare()  # fails with a circle, if there is one
