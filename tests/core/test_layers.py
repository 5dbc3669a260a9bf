"""Which part of `dpt_core` may import which: read off its import statements."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

CORE = Path(__file__).resolve().parents[2] / "dpt_core"
PACK = CORE.parent
MODULES = {path: path.relative_to(PACK).with_suffix("") for path in CORE.rglob("*.py")}

HOST = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "nodes", "server"}
LATE = {"accelerate", "diffusers", "matplotlib", "peft", "rich", "tqdm", "transformers"}
"""Imported where they are used: not everyone who imports the method has them, or waits for them."""

ABOVE = {
    "shapes": {"losses", "training", "demo", "evaluation", "cli"},
    "losses": {"shapes", "training", "demo", "evaluation", "cli"},
    "training": {"shapes", "demo", "evaluation", "cli"},
    "demo": {"cli"},
    "evaluation": {"demo", "cli"},
}
"""Room → the rooms that it must not import. The modules of no room, the method itself, import none
of them."""

RUNS = {
    "dpt_core.explain", "dpt_core.generation", "dpt_core.searching",
    "dpt_core.demo.scenes", "dpt_core.training.adapter_run", "dpt_core.training.loop",
    "dpt_core.training.report", "dpt_core.training.tuning_run", "nodes.host.training",
}  # fmt: skip
"""What only a run needs: nodes import it when they run, for everybody waits for the start."""

ROOMS = {"shapes", "losses", "training", "demo", "evaluation", "cli"}


class Import(NamedTuple):
    """One import statement.

    Attributes:
        name: dotted, from the root: `dpt_core.losses.weights`, `torch.nn`.
        late: it stands inside a function, or is for type checkers alone.
        line: where.
    """

    name: str
    late: bool
    line: int


def imports_of(path: Path) -> Iterator[Import]:
    package = path.relative_to(PACK).parts[:-1]

    def read(node: ast.AST, late: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, late, child.lineno)
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) + 1 - child.level] if child.level else ()
                start = ".".join([*base, *filter(None, [child.module])])
                for alias in child.names:
                    yield Import(f"{start}.{alias.name}", late, child.lineno)
            else:
                kind = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
                typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
                yield from read(child, late or typing or isinstance(child, kind))

    yield from read(ast.parse(path.read_text("utf-8")), late=False)


def room(parts: tuple[str, ...]) -> str:
    """The room of a module of `dpt_core`, or "" for the method itself."""
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else ""


def faults(wrong) -> list[str]:
    return [
        f"{MODULES[path]}:{one.line} imports {one.name}"
        for path in sorted(MODULES)
        for one in imports_of(path)
        if wrong(path, one)
    ]


def test_there_is_something_to_read():
    names = {one.name for path in MODULES for one in imports_of(path)}
    assert {"dpt_core.score.alignment_score", "diffusers.DDPMScheduler", "torch"} < names


@pytest.mark.parametrize("below", [*ABOVE, ""], ids=lambda name: name or "the method")
def test_nothing_imports_what_stands_above_it(below):
    above = ABOVE.get(below, ROOMS)

    def upwards(path: Path, one: Import) -> bool:
        parts = tuple(one.name.split("."))
        entry = len(MODULES[path].parts) == 2 and path.stem == "__main__"
        mine = room(MODULES[path].parts) == below and not entry
        return mine and parts[0] == "dpt_core" and room(parts) in above

    assert faults(upwards) == []


def test_the_method_never_imports_the_host():
    assert faults(lambda path, one: one.name.split(".")[0] in HOST) == []


def test_heavy_packages_are_imported_where_they_are_used():
    assert faults(lambda path, one: one.name.split(".")[0] in LATE and not one.late) == []


def test_the_start_does_not_wait_for_what_a_run_needs():
    left, found = list((PACK / "nodes").glob("*.py")), set()
    while left:
        for one in imports_of(left.pop()):
            if one.late:
                continue
            for name in (one.name, one.name.rpartition(".")[0]):
                path = PACK.joinpath(*name.split(".")).with_suffix(".py")
                if name not in found and path.exists():
                    found.add(name)
                    left.append(path)
    assert "dpt_core.training.recipe" in found  # settings are on the nodes
    assert found & RUNS == set()
