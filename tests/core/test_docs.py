"""The README and its pages: links lead somewhere, commands are ones that `dpt` has."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from urllib.parse import unquote

import pytest

from dpt_core.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\((?!https?:)([^)\s]*)\)")
COMMAND = re.compile(r"^ {4}(?:dpt|python3 run\.py) (?!test\b)(.+)$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """What a page's headings are called in a link, as the site that shows them has it."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page):
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def commands() -> list[str]:
    pages = [page.read_text(encoding="utf-8").replace("\\\n", " ") for page in PAGES]
    return [command for page in pages for command in COMMAND.findall(page)]


@pytest.mark.parametrize("command", commands())
def test_commands(command):
    """Each is accepted as it is written; nothing runs."""
    app.parse_args(shlex.split(command, comments=True), exit_on_error=False, print_error=False)


def test_commands_are_found():
    found = commands()
    assert 'demo "a red circle left of a blue square"' in found
    assert len(found) > 8
