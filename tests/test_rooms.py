"""The rooms of the package and what they may import (docs/architecture.md)."""

import ast
import re
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "jaxdna"
ARCHITECTURE = PACKAGE.parent / "docs" / "architecture.md"


def rooms_in_order() -> list[str]:
    sentence = re.search(
        r"from those above it in this order:(.*?)\(", ARCHITECTURE.read_text(), re.S
    )
    assert sentence
    return re.findall(r"`(\w+)`", sentence[1])


def imports() -> list[tuple[str, str, Path]]:
    """Returns (importing room, imported room, file) of every import of a room by another."""
    found = []
    for path in PACKAGE.glob("*/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            parts = (module or "").split(".")
            if parts[0] == "jaxdna" and len(parts) > 1 and (PACKAGE / parts[1]).is_dir():
                found.append((path.relative_to(PACKAGE).parts[0], parts[1], path))
    return found


def test_every_room_is_in_the_order():
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms == set(rooms_in_order())


def test_no_room_imports_from_one_below_it():
    order, found = rooms_in_order(), imports()
    assert len(found) > 100
    assert [
        f"{path.relative_to(PACKAGE)} imports {imported}"
        for importing, imported, path in found
        if order.index(imported) > order.index(importing)
    ] == []
