"""Words under which people look for a node, where the host knows such a thing."""

from __future__ import annotations

from dataclasses import fields

from comfy_api.latest import io


def search_aliases(*words: str) -> dict[str, list[str]]:
    """An argument for a schema; none on hosts before search aliases (0.3.64)."""
    known = any(field.name == "search_aliases" for field in fields(io.Schema))
    return {"search_aliases": list(words)} if known else {}
