"""Hard negatives that are made of captions."""

from __future__ import annotations


def automatic_negatives(caption: str, limit: int, seed: int) -> list[str]:
    """Captions that look like a caption and do not hold where it does.

    Args:
        caption: in English.
        limit: how many at most.
        seed: of the choice among those that can be made.
    """
    try:
        from ...negatives import hard_negatives
    except ImportError:
        return []
    return hard_negatives(caption, limit, seed)
