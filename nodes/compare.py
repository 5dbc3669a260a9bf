"""Show batches of pictures above each other, with what is right and wrong in them."""

import math
import re

import torch
from comfy_api.latest import io, ui

from ..dpt_core.compare import THEMES, Batch, compare
from ..dpt_core.verdicts import Verdict, by_first, by_parts, by_threshold
from .host.aliases import search_aliases
from .host.pictures import to_image, to_pictures
from .host.selection import flat_scores

BATCHES = 4
NO_THRESHOLD = -1.0
Judged = io.Custom("FLOAT,STRING")
"""What judges a batch: the host takes a wire of either type."""


class Compare(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs: list[io.Input] = []
        for number in range(1, BATCHES + 1):
            inputs += [
                io.Image.Input(
                    f"images_{number}",
                    optional=number > 1,
                    tooltip=f"Row {number} of the comparison: a batch, or a list of pictures.",
                ),
                Judged.Input(
                    f"scores_{number}",
                    optional=True,
                    tooltip="What tells right from wrong in these pictures: the scores of DPT "
                    "Alignment Score, or the JSON of DPT Explain.",
                ),
            ]
        return io.Schema(
            node_id="DPT_Compare",
            display_name="DPT Compare",
            category="DPT",
            description="Shows batches of pictures above each other, such as plain above "
            "corrected, with green and red frames, ticks, scores and how many are right.",
            is_input_list=True,
            is_output_node=True,
            inputs=[
                *inputs,
                io.String.Input(
                    "labels",
                    default="plain, DPT",
                    tooltip="What the rows are called, with commas between. With one row only: "
                    "what its pictures are called.",
                ),
                io.String.Input(
                    "title", default="", tooltip="What stands above it all, such as the prompt."
                ),
                io.Float.Input(
                    "threshold",
                    default=NO_THRESHOLD,
                    min=-1.0,
                    max=1.0,
                    step=0.01,
                    tooltip="The score from which a picture counts as right. At -1 the rows are "
                    "compared with the first one: better is green, worse is red.",
                ),
                io.Combo.Input(
                    "theme",
                    options=list(THEMES),
                    default=next(iter(THEMES)),
                    tooltip="dark or light paper.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The comparison as one picture.")
            ],
            **search_aliases(
                "side by side", "before after", "image grid", "contact sheet", "A/B compare"
            ),
        )

    @classmethod
    def execute(
        cls,
        images_1: list[torch.Tensor],
        labels: list[str],
        title: list[str],
        threshold: list[float],
        theme: list[str],
        **more: list,
    ) -> io.NodeOutput:
        wired = {1: images_1} | {
            number: more[f"images_{number}"]
            for number in range(2, BATCHES + 1)
            if more.get(f"images_{number}", [None])[0] is not None
        }
        rows = {number: to_pictures(images) for number, images in wired.items()}
        judged = {number: more.get(f"scores_{number}") or [None] for number in wired}
        verdicts = {
            number: verdicts_of(judged[number], judged[1], threshold[0]) for number in wired
        }
        words = [word.strip() for word in re.split("[,\n]", labels[0])]
        names = words if len(rows) == 1 and len(words) == len(rows[1]) else []
        batches = [
            Batch("" if names else label_of(words, place), pictures, verdicts[number], names)
            for place, (number, pictures) in enumerate(rows.items())
        ]
        image = to_image(compare(batches, title[0], theme[0]))
        return io.NodeOutput(image, ui=ui.PreviewImage(image, cls=cls))


def verdicts_of(given: list, first: list, threshold: float) -> list[Verdict]:
    """What is known of the pictures of a row, from what is wired to it and to the first row.

    Raises:
        ValueError: the threshold is no number.
    """
    if math.isnan(threshold):
        raise ValueError("threshold must be a number; got nan")
    if given[0] is None:
        return []
    texts = [each for each in given if isinstance(each, str)]
    if texts:
        return [verdict for text in texts for verdict in by_parts(text)]
    scores = flat_scores(given)
    if threshold > NO_THRESHOLD:
        return by_threshold(scores, threshold)
    if given is first or first[0] is None or isinstance(first[0], str):
        return by_first(scores, scores)
    return by_first(scores, flat_scores(first))


def label_of(words: list[str], place: int) -> str:
    """What a row is called, or its number where nothing is said."""
    return words[place] if place < len(words) else f"row {place + 1}"
