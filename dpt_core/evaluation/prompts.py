"""What arms are compared on, whatever data set it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..shapes.caption import Caption


@dataclass(frozen=True)
class Prompt:
    """One prompt, with the seed that every arm draws it from.

    Attributes:
        index: from 0.
        text: the prompt.
        category: what its figures are grouped by.
        seed: seed of the picture.
        caption: what the judge looks for, in the shapes world.
    """

    index: int
    text: str
    category: str
    seed: int
    caption: Caption | None = None


@dataclass(frozen=True)
class Source:
    """Prompts and how to tell them from others.

    Attributes:
        prompts: the prompts.
        about: what they are, as JSON values: name, count, and what else makes them these.
        judged: whether a picture shows what its prompt says can be computed.
    """

    prompts: Sequence[Prompt]
    about: dict[str, Any]
    judged: bool = False
