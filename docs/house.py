"""Draw the house from its imports, and check it: ``python docs/house.py`` writes the drawing into architecture.md.

With ``--check``, as `make lint` calls it, nothing is written. It fails where two files import each other, directly or
by way of others, where a file has more than 400 lines, and where the drawing is not that of today's imports. Late
imports and imports for types count like all others: two files that need each other cannot be read apart.

A room is a folder below ``tuneopt``, or a file that stands alone. An arrow from one room to another says that the first
imports from the second. Where a way over other rooms leads there too the arrow is left out, or nothing could be seen.
"""

from __future__ import annotations

import sys
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- drawn by docs/house.py -->", "<!-- end of the drawing -->"
LONGEST = 400
"""Lines of a file; what needs more is more than one thing."""

FLOORS = {
    7: ("cli", "commands"),
    6: ("api",),
    5: ("cluster", "reporting", "notebook", "display", "console"),
    4: ("run",),
    3: ("analysis", "training", "search_spaces"),
    2: ("observe", "search", "optim", "data", "ledger"),
    1: (
        "outside",
        "modules",
        "scale_files",
        "declared",
        "spec",
        "architecture",
        "paths",
        "errors",
        "streams",
        "parallel",
        "checked",
        "constants",
    ),
}
"""The floors of the house. The import contracts in pyproject.toml order the rooms of one floor, too."""


def main() -> int:
    """Check the house; draw it, or with ``--check`` compare the drawing. 1 where something is wrong."""
    graph = grimp.build_graph("tuneopt", "search_spaces", exclude_type_checking_imports=False, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    homeless = {_room(module) for module in imports} - {"tuneopt", "__main__"} - {*chain(*FLOORS.values())}
    faults = [*_circles(imports), *_long_files(), *(f"{room} stands on no floor of docs/house.py" for room in homeless)]
    head, _, rest = PAGE.read_text().partition(BEGIN)
    page = f"{head}{BEGIN}\n{_drawing(imports)}\n{END}{rest.partition(END)[2]}"
    if "--check" not in sys.argv:
        PAGE.write_text(page)
    elif page != PAGE.read_text():
        faults.append("docs/architecture.md does not draw today's imports; run `python docs/house.py`")
    for fault in faults:
        print(fault)
    return 1 if faults else 0


def _circles(imports: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return [f"files that import each other: {' -> '.join(error.args[1])}"]
    return []


def _long_files() -> list[str]:
    lengths = {path: path.read_text().count("\n") for path in (ROOT / "tuneopt").rglob("*.py")}
    return [f"{path.relative_to(ROOT)} has {length} lines" for path, length in lengths.items() if length > LONGEST]


def _drawing(imports: dict[str, set[str]]) -> str:
    """The rooms by floor, and the arrows between them, as a mermaid flowchart."""
    floor_of = {room: number for number, rooms in FLOORS.items() for room in rooms}
    needs: dict[str, set[str]] = {}
    for module, several in imports.items():
        needs.setdefault(_room(module), set()).update(map(_room, several))
    # Rooms are walked bottom up, so that `reach` of whatever a room needs is known: all rooms that it stands on.
    reach: dict[str, set[str]] = {}
    arrows = []
    for room in TopologicalSorter({room: own - {room} for room, own in needs.items()}).static_order():
        own = needs[room] - {room}
        beyond = set().union(*(reach[below] for below in own))
        reach[room] = own | beyond
        if room in floor_of:
            arrows += [f"  {room} --> {below}" for below in sorted(own - beyond)]
    lines = ["```mermaid", "flowchart TB"]
    for number, rooms in sorted(FLOORS.items(), reverse=True):
        lines += [f"  subgraph floor{number}[floor {number}]", *(f"    {room}" for room in rooms), "  end"]
    return "\n".join([*lines, *sorted(arrows), "```"])


def _room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if parts[0] == "tuneopt" and len(parts) > 1 else parts[0]


if __name__ == "__main__":
    sys.exit(main())
