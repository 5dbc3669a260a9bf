"""What our nodes take from ComfyUI, read from the source; `python3 tests/host_symbols.py` writes it
into the table of docs/hosts.md."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "hosts.md"
BEGIN, END = "<!-- symbols: made by tests/host_symbols.py -->\n", "<!-- end of symbols -->\n"
MODULES = (
    "comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "latent_preview",
    "node_helpers", "nodes", "server",
)  # fmt: skip
"""The host's own modules, as far as packs use them."""

MANY = 3
"""What more files use, no node works without: the tests that load every node guard it."""

GUARDS = {
    "nodes/__init__.py": ["test_host_symbols.py", "test_server.py"],
    "nodes/alignment_score.py": ["test_text_and_score.py"],
    "nodes/apply_lora.py": ["test_demo_model.py"],
    "nodes/correction_inputs.py": ["test_locales.py"],
    "nodes/demo_model.py": ["test_demo_model.py"],
    "nodes/ground_phrase.py": ["test_grounding.py"],
    "nodes/ksampler.py": ["test_trajectories.py", "test_server.py"],
    "nodes/load_adapter.py": ["test_load_adapter.py"],
    "nodes/search_ksampler.py": ["test_search.py"],
    "nodes/save_adapter.py": ["test_training.py"],
    "nodes/select_best.py": ["test_select_best.py"],
    "nodes/self_correction.py": ["test_composition.py"],
    "nodes/text_encode.py": ["test_text_and_score.py"],
    "nodes/train_adapter.py": ["test_training.py"],
    "nodes/training_data.py": ["test_training.py"],
    "nodes/tune_lora.py": ["test_tuning.py"],
    "nodes/host/adapter.py": ["test_load_adapter.py"],
    "nodes/host/calls.py": ["test_vanishing_correction.py", "test_rows.py"],
    "nodes/host/demo.py": ["test_demo_model.py"],
    "nodes/host/encode.py": ["test_text_and_score.py"],
    "nodes/host/gradients.py": ["test_gradients.py"],
    "nodes/host/grounding.py": ["test_grounding.py"],
    "nodes/host/lora.py": ["test_real_loaders.py"],
    "nodes/host/passes.py": ["test_training.py"],
    "nodes/host/studio.py": ["test_tuning.py"],
    "nodes/host/training.py": ["test_training.py"],
    "nodes/host/backbones": ["test_golden_cases.py", "test_trajectories.py"],
    "nodes/host/measure.py": ["test_text_and_score.py"],
    "nodes/host/progress.py": ["test_server.py"],
    "nodes/host/read_once.py": ["test_text_and_score.py", "test_grounding.py"],
    "nodes/host/rows.py": ["test_composition.py"],
    "nodes/host/scoring.py": ["test_golden_cases.py"],
    "nodes/host/search.py": ["test_search.py"],
    "nodes/host/selection.py": ["test_select_best.py"],
    "nodes/host/text_store.py": ["test_training.py"],
    "nodes/host/texts.py": ["test_text_and_score.py"],
    "nodes/host": ["test_composition.py", "test_trajectories.py"],
    "nodes": ["test_server.py"],
}
"""Tests of `tests/host` that fail when a file's use of the host no longer works. A file that is not
named is guarded by the tests of its folder."""


def host_symbols() -> dict[str, list[str]]:
    """Files under `nodes` that use a symbol of the host, by the symbol's dotted name."""
    found = defaultdict(set)
    for path in sorted((ROOT / "nodes").rglob("*.py")):
        for symbol in used(ast.parse(path.read_text(encoding="utf-8"))):
            found[symbol].add(path.relative_to(ROOT).as_posix())
    return {symbol: sorted(found[symbol]) for symbol in sorted(found)}


def used(tree: ast.Module) -> Iterator[str]:
    """Dotted names of what a file imports from the host and touches of it."""
    names = dict(imported(tree))
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and id(node) not in inner:
            if symbol := resolved(node, names):
                yield symbol


def imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """What a file calls a thing of the host, and its dotted name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            if node.module.split(".")[0] in MODULES:
                for alias in node.names:
                    yield alias.asname or alias.name, f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.split(".")[0]
                if root in MODULES:
                    yield (alias.asname, alias.name) if alias.asname else (root, root)


def resolved(node: ast.expr, names: dict[str, str]) -> str | None:
    """Dotted name of an expression such as `management.get_torch_device`, if it is the host's."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute) and (base := resolved(node.value, names)):
        return f"{base}.{node.attr}"
    return None


def guards(file: str) -> list[str]:
    """Tests that guard a file."""
    for place in (file, *(parent.as_posix() for parent in Path(file).parents)):
        if place in GUARDS:
            return GUARDS[place]
    raise KeyError(file)


def table() -> str:
    """The page's table: a row per symbol."""
    rows = ["| Symbol | Used in | Guarded by |\n", "|---|---|---|\n"]
    for symbol, files in host_symbols().items():
        tests = sorted({test for file in files for test in guards(file)})
        used_in = ", ".join(f"`{file.removeprefix('nodes/')}`" for file in files)
        if len(files) > MANY:
            tests, used_in = guards("nodes"), f"{len(files)} files"
        rows.append(f"| `{symbol}` | {used_in} | {', '.join(f'`{test}`' for test in tests)} |\n")
    return "".join(rows)


def renewed(page: str) -> str:
    """A page with the table as it should be."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
