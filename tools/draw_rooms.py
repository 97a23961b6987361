"""Draws the rooms of the package and who imports from whom: python tools/draw_rooms.py.

The order is that of docs/architecture.md, the words are the first of each room's docstring, and the
arcs are today's imports: the thicker, the more of them. Writes docs/images/rooms.svg.
"""

import ast
import html
import re
from collections import Counter
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
PACKAGE = REPOSITORY / "jaxdna"
PAGE = REPOSITORY / "docs" / "architecture.md"
PICTURE = REPOSITORY / "docs" / "images" / "rooms.svg"

_STYLE = """
rect{fill:#f3f6fb;stroke:#4a6fa5;rx:6}.name{font-size:15px;font-weight:bold;fill:#1d2d44}
.words{font-size:11.5px;fill:#3b4a60}path{fill:none;stroke:#4a6fa5;stroke-opacity:.55}
"""
_HEIGHT, _GAP, _WIDTH, _LEFT = 44, 10, 545, 10


def rooms_in_order() -> list[str]:
    """The rooms, each of which imports only from those before it."""
    sentence = re.search(r"from those above it in this order:(.*?)\(", PAGE.read_text(), re.DOTALL)
    assert sentence
    return re.findall(r"`(\w+)`", sentence[1])


def imports(path: Path) -> set[str]:
    """The rooms that a module imports from."""
    return {
        parts[1]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        and len(parts := (node.module or "").split(".")) > 1
        and parts[0] == "jaxdna"
    }


def picture() -> str:
    """The picture as SVG: users above, what they use below, an arc for each pair of rooms."""
    order = rooms_in_order()[::-1]
    modules = {room: sorted((PACKAGE / room).rglob("*.py")) for room in order}
    arcs = Counter(
        (room, used) for room in order for path in modules[room] for used in imports(path)
    )
    step = _HEIGHT + _GAP
    middle = {room: _GAP + i * step + _HEIGHT / 2 for i, room in enumerate(order)}
    parts = []
    for room in order:
        top = middle[room] - _HEIGHT / 2
        lines = sum(len(path.read_text().splitlines()) for path in modules[room])
        words = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text())) or ""
        parts += [
            f'<rect x="{_LEFT}" y="{top}" width="{_WIDTH}" height="{_HEIGHT}"/>',
            f'<text class="name" x="{_LEFT + 12}" y="{top + 19}">{room}/ '
            f'<tspan class="words" font-weight="normal">{lines:,} lines</tspan></text>',
            f'<text class="words" x="{_LEFT + 12}" y="{top + 36}">'
            f"{html.escape(words.splitlines()[0])}</text>",
        ]
    edge = _LEFT + _WIDTH
    for (room, used), count in sorted(arcs.items()):
        if room != used and used in middle:
            start, end = middle[room] + 5, middle[used] - 5
            reach = edge + 14 + 0.42 * abs(end - start)
            parts.append(
                f'<path d="M{edge} {start}C{reach:.0f} {start} {reach:.0f} {end} {edge} {end}" '
                f'stroke-width="{0.6 + count / 4:.1f}"/>'
            )
    height = _GAP + len(order) * step
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {height}" '
        f'font-family="sans-serif">\n<style>{_STYLE}</style>\n'
        f'<rect width="760" height="{height}" style="fill:#fff;stroke:none"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


if __name__ == "__main__":
    PICTURE.write_text(picture())
