"""The map of the code: one line a file, its docstring's first. `python3 tests/code_map.py` renews
`docs/map.md`."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "map.md"
ROOMS = ("dpt_core", "nodes", "benchmarks")
INTRO = """# Map of the code

One line a file, made by `python3 tests/code_map.py` from the files' own first lines. `dpt_core` is
the method and never imports ComfyUI; `nodes` holds one thin node a file, and `nodes/host` what they
share; `benchmarks` measures what it all costs.
"""


def sources() -> list[Path]:
    """The product's modules, a room's own files before its folders'."""
    found = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    shown = [path for path in found if path.name != "__main__.py"]
    return sorted(shown, key=lambda path: (path.parent.as_posix(), path.name))


def first_line(path: Path) -> str:
    """What a module says of itself, the first sentence if it does not end on the first line."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def code_map() -> str:
    """The page."""
    lines, room = [INTRO], None
    for path in sources():
        folder = path.parent.relative_to(ROOT).as_posix()
        if folder != room:
            lines += ["", f"## `{folder}`", ""] if room else [f"## `{folder}`", ""]
            room = folder
        name = path.name
        text = first_line(path)
        lines.append(f"{text}\n" if name == "__init__.py" else f"- `{name}`: {text}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(code_map(), encoding="utf-8")
