"""Tell which part of a prompt holds in pictures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import torch
from comfy_api.latest import io

from ..dpt_core.compare import THEMES
from ..dpt_core.plots import drawn
from .host.adapter import AdapterIO, LoadedAdapter
from .host.aliases import search_aliases
from .host.pictures import to_image
from .host.progress import show

if TYPE_CHECKING:
    from ..dpt_core.explanation import Explanation


class Explain(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DPT_Explain",
            display_name="DPT Explain",
            category="DPT",
            description="Takes a prompt apart and tells which part holds in each picture and which "
            "fails: things, attributes, counts, relations, with boxes and a mask to repaint.",
            inputs=[
                io.Model.Input("model", tooltip="The model the adapter was trained on."),
                AdapterIO.Input("adapter", tooltip="The adapter that finds things."),
                io.Vae.Input("vae", tooltip="Encodes the pictures."),
                io.Image.Input("images", tooltip="The pictures to explain, of any size."),
                io.Clip.Input("clip", tooltip="The text encoder that goes with the model."),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    tooltip="What the pictures should show, in English.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    tooltip="The seed of the noise; every picture gets the same noise.",
                ),
                io.Combo.Input(
                    "theme",
                    options=list(THEMES),
                    default=next(iter(THEMES)),
                    tooltip="dark or light paper below the pictures.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="annotated",
                    tooltip="The pictures, enlarged, with boxes and the parts ticked below.",
                ),
                io.Float.Output(
                    display_name="holds",
                    is_output_list=True,
                    tooltip="Per picture the share of parts that hold, for DPT Select Best.",
                ),
                io.String.Output(
                    display_name="failed",
                    tooltip="What fails in any of the pictures, as it stands in the prompt.",
                ),
                io.Mask.Output(
                    display_name="mask",
                    tooltip="Per picture where to repaint what fails; empty where all holds.",
                ),
                io.String.Output(
                    display_name="json",
                    tooltip="All parts with verdict, confidence and boxes, for DPT Compare.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            **search_aliases(
                "prompt adherence",
                "what is wrong",
                "check prompt",
                "missing object",
                "prompt verification",
                "find failed part",
            ),  # fmt: skip
        )

    @classmethod
    def validate_inputs(cls, prompt: str | None = None) -> bool | str:
        """Refuse an empty prompt while wiring; a wired one is not known yet."""
        if prompt is not None and not prompt.strip():
            return "prompt is empty: write what the pictures should show"
        return True

    @classmethod
    def execute(
        cls,
        model: object,
        adapter: LoadedAdapter,
        vae: object,
        images: torch.Tensor,
        clip: object,
        prompt: str,
        seed: int,
        theme: str,
    ) -> io.NodeOutput:
        from ..dpt_core.explain import explain, questions
        from ..dpt_core.explanation import draw, failed_mask
        from ..dpt_core.phrases import take_apart
        from .host.explain import read_evidence

        parts = take_apart(prompt)
        every = read_evidence(model, adapter, vae, images, clip, questions(parts), seed)
        found = [explain(parts, each) for each in every]
        marked = [
            drawn(draw, each.picture, one, theme, instead=each.picture)
            for each, one in zip(every, found, strict=True)
        ]
        masks = [failed_mask(one, *images.shape[1:3]) for one in found]
        failed = dict.fromkeys(words for one in found for words in one.failed)
        show(cls.hidden.unique_id, in_words(found))
        return io.NodeOutput(
            torch.cat([to_image(each) for each in of_one_height(marked)]),
            [one.share for one in found],
            ", ".join(failed),
            torch.from_numpy(np.stack(masks)),
            json.dumps([one.as_data() for one in found]),
        )


def in_words(found: list[Explanation]) -> str:
    """What the node says: how many parts hold in each picture, and what could not be checked."""
    lines = []
    for place, one in enumerate(found, start=1):
        failing = "; ".join(part.text for part in one.parts if part.held is False)
        counted = f"image {place}: {sum(one.known)} of {len(one.known)} parts hold"
        lines.append(f"{counted} ({failing})" if failing else counted)
    untold = dict.fromkeys(part.text for one in found for part in one.parts if part.held is None)
    if untold:
        lines.append(f"cannot be checked: {', '.join(untold)}")
    return "\n".join(lines)


def of_one_height(pictures: list[np.ndarray]) -> list[np.ndarray]:
    """Pictures of one width as a batch: the shorter ones go on in the colour of their paper."""
    height, (_, width, _) = max(len(each) for each in pictures), pictures[0].shape
    papers = [np.tile(each[-1:, :1], (height - len(each), width, 1)) for each in pictures]
    return [np.concatenate(pair) for pair in zip(pictures, papers, strict=True)]
