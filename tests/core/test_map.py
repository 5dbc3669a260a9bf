"""The map of the code is the code's."""

from __future__ import annotations

from code_map import PAGE, code_map, first_line, sources


def test_every_file_says_what_it_is():
    assert [path for path in sources() if not first_line(path)] == []


def test_the_map_is_of_this_code():
    assert PAGE.read_text(encoding="utf-8") == code_map(), "run: python3 tests/code_map.py"
