"""Draw the house: rooms by floor, an arrow where one imports another. Writes docs/images/house.svg.

    python docs/house.py [--check]

A room is a folder or a file right below `vbinfer/`. Its floor is one above the highest room it imports, so that every
arrow points down. `--check` writes nothing and exits with 1 when the drawing is not that of the code.
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "vbinfer"
DRAWING = ROOT / "docs" / "images" / "house.svg"
WIDTH, HEIGHT, GAP, FLOOR = 118, 34, 14, 92
ALL_ROOMS = {
    "_param",
    "_names",
    "_check",
    "_random",
    "_arviz",
    "_moved",
    "_ode",
    "_show",
    "io",
}  # the ground floor, one box


def rooms() -> dict[str, set[str]]:
    """Each room with the rooms that it imports, inside functions too, but not for type checkers alone."""
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if room == "__init__":
            continue
        room = "ground" if room in ALL_ROOMS else room
        targets = found.setdefault(room, set())
        for name in imported(ast.parse(path.read_text())):
            first = name.split(".")[1]
            first = "ground" if first in ALL_ROOMS else first
            if first != room:
                targets.add(first)
    return found


def imported(tree: ast.AST):
    """Absolute names below vbinfer that a module imports."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and (node.module == "vbinfer" or (node.level and not node.module)):
            yield from (f"vbinfer.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.level == 1 or (node.module or "").startswith("vbinfer.")):
            yield f"vbinfer.{node.module}" if node.level else node.module
        yield from imported(node)


def floors(house: dict[str, set[str]]) -> list[list[str]]:
    """Rooms by floor, the ground first; a circle has no floor and is an error that names it."""
    level: dict[str, int] = {}

    def height(room: str, path: tuple[str, ...]) -> int:
        if room in path:
            raise SystemExit(f"rooms import each other in a circle: {' -> '.join((*path, room))}")
        if room not in level:
            below = [height(other, (*path, room)) for other in house[room] if other in house]
            level[room] = 1 + max(below, default=-1)
        return level[room]

    for room in house:
        height(room, ())
    return [sorted(room for room in house if level[room] == n) for n in range(max(level.values()) + 1)]


def drawing() -> str:
    """The house as SVG."""
    house = rooms()
    rows = floors(house)
    widest = max(len(row) for row in rows)
    total, high = widest * (WIDTH + GAP) + GAP, len(rows) * FLOOR + 20
    place = {}
    for n, row in enumerate(rows):
        aside = 0 if len(row) > 1 else (-1) ** n * 1.3 * WIDTH  # rooms above each other would hide their arrows
        left = (total - len(row) * (WIDTH + GAP) + GAP) / 2 + aside
        for k, room in enumerate(row):
            place[room] = (left + k * (WIDTH + GAP), high - (n + 1) * FLOOR + 20)
    arrows: list[str] = []
    boxes: list[str] = []
    for room, targets in sorted(house.items()):
        for target in sorted(targets & set(place)):
            if target == "ground":
                continue  # everybody's
            (x0, y0), (x1, y1) = place[room], place[target]
            start, end, bend = (x0 + WIDTH / 2, y0 + HEIGHT), (x1 + WIDTH / 2, y1), (y1 - y0 - HEIGHT) / 2
            arrows.append(
                f'<path d="M{start[0]:.0f} {start[1]:.0f} C{start[0]:.0f} {start[1] + bend:.0f} '
                f'{end[0]:.0f} {end[1] - bend:.0f} {end[0]:.0f} {end[1]:.0f}"/>'
            )
    for room, (x, y) in place.items():
        folder = (PACKAGE / room).is_dir()
        name = "io _param _names _check ..." if room == "ground" else f"{room}/" if folder else f"{room}.py"
        wide = WIDTH * 2 if room == "ground" else WIDTH
        x = total / 2 - WIDTH if room == "ground" else x
        boxes.append(
            f'<rect x="{x:.0f}" y="{y:.0f}" width="{wide}" height="{HEIGHT}" rx="5"/>'
            f'<text x="{x + wide / 2:.0f}" y="{y + 22:.0f}">{name}</text>'
        )
    style = (
        "path{fill:none;stroke:#4a6b8a;stroke-width:1;opacity:.38}rect{fill:#f4f7fa;stroke:#2d4356}"
        "text{font:13px sans-serif;text-anchor:middle;fill:#16232e}"
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {high}" width="{total}" height="{high}">'
    back = f'<rect width="{total}" height="{high}" style="fill:#fff;stroke:none"/>'
    return "\n".join([head, f"<style>{style}</style>", back, *arrows, *boxes, "</svg>", ""])


if __name__ == "__main__":
    text = drawing()
    if "--check" in sys.argv:
        sys.exit(
            0
            if DRAWING.exists() and DRAWING.read_text() == text
            else "docs/images/house.svg is old: python docs/house.py"
        )
    DRAWING.write_text(text)
