"""Keep the best of many pictures."""

import logging

import torch
from comfy_api.latest import io
from comfy_execution.graph import ExecutionBlocker

from ..dpt_core.compare import Batch, compare
from ..dpt_core.plots import drawn
from ..dpt_core.selection import ranked, select_best
from ..dpt_core.verdicts import Part, Verdict
from .host.aliases import search_aliases
from .host.pictures import to_image, to_pictures
from .host.progress import show
from .host.selection import (
    Latent,
    flat_scores,
    join_images,
    join_latents,
    split_images,
    split_latents,
)

logger = logging.getLogger(__name__)

KEEP, STOP = "keep the best", "stop"
NO_LATENT = "DPT Select Best has no latent to give: wire one into its latent input"


class SelectBest(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DPT_SelectBest",
            display_name="DPT Select Best",
            category="DPT",
            description="Keeps the best pictures by their scores, the best first. Takes batches "
            "and lists; pictures of different sizes come out as a list.",
            is_input_list=True,
            inputs=[
                io.Image.Input("images", tooltip="The pictures to choose from."),
                io.Float.Input(
                    "scores",
                    force_input=True,
                    tooltip="A score per picture: the scores output of DPT Alignment Score.",
                ),
                io.Int.Input(
                    "count", default=1, min=1, max=4096, tooltip="How many to keep at most."
                ),
                io.Float.Input(
                    "minimum",
                    default=-1.0,
                    min=-1000000.0,
                    max=1000000.0,
                    step=0.01,
                    tooltip="Pictures with a lower score are not kept. Alignment scores lie "
                    "between -1 and 1, so -1 lets all pass.",
                ),
                io.Combo.Input(
                    "if_none_pass",
                    options=[KEEP, STOP],
                    default=KEEP,
                    tooltip="When no picture reaches the minimum: keep the best one and warn, or "
                    "run nothing that follows this node.",
                ),
                io.Latent.Input(
                    "latent", optional=True, tooltip="The pictures' latents, in the same order."
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="images", is_output_list=True, tooltip="The best, best first."
                ),
                io.Latent.Output(
                    display_name="latent", is_output_list=True, tooltip="Their latents."
                ),
                io.Int.Output(
                    display_name="indices",
                    is_output_list=True,
                    tooltip="Where they were among the pictures, counted from 0.",
                ),
                io.Float.Output(
                    display_name="scores", is_output_list=True, tooltip="Their scores."
                ),
                io.Image.Output(
                    display_name="marked",
                    tooltip="One picture to look at: all of them, the best first, with their "
                    "scores; those that were kept have a green frame and their rank.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            **search_aliases("best of n", "rank images", "pick best", "filter by score"),
        )

    @classmethod
    def execute(
        cls,
        images: list[torch.Tensor],
        scores: list,
        count: list[int],
        minimum: list[float],
        if_none_pass: list[str],
        latent: list[Latent | None] | None = None,
    ) -> io.NodeOutput:
        pictures, values = split_images(images), flat_scores(scores)
        latents = split_latents(each for each in latent or () if each is not None)
        check_counts(len(pictures), len(values), len(latents))
        chosen, notes = select_best(values, count[0], minimum[0]), []
        if not chosen:
            notes.append(f"no picture reaches {minimum[0]:g}; the best scores {max_of(values):.4f}")
            logger.warning("DPT: %s", notes[0])
            if if_none_pass[0] == STOP:
                show(cls.hidden.unique_id, f"stopped: {notes[0]}")
                blocked = [ExecutionBlocker(None)] * 4
                return io.NodeOutput(*blocked, marked(pictures, values, []))
            chosen = ranked(values)[:1]
        notes += [f"image {index + 1}: {values[index]:.4f}" for index in chosen]
        show(cls.hidden.unique_id, "\n".join(notes))
        kept = join_latents([latents[i] for i in chosen]) if latents else None
        return io.NodeOutput(
            join_images([pictures[index] for index in chosen]),
            kept or [ExecutionBlocker(NO_LATENT)],
            chosen,
            [values[index] for index in chosen],
            marked(pictures, values, chosen),
        )


def marked(pictures: list[torch.Tensor], values: list[float], chosen: list[int]) -> torch.Tensor:
    """All pictures `[1, H, W, C]`, the best first, with rank and frame, as one IMAGE."""
    order, kept = ranked(values), set(chosen)
    verdicts = [
        Verdict(each, (Part("kept" if each else "not kept", each),), values[index])
        for index, each in ((index, index in kept) for index in order)
    ]
    badges = [str(rank) if index in kept else "" for rank, index in enumerate(order, start=1)]
    names = [f"image {index + 1}" for index in order]
    shown = to_pictures(pictures[index] for index in order)
    return to_image(drawn(compare, [Batch("best first", shown, verdicts, names, badges)]))


def max_of(values: list[float]) -> float:
    """The best score."""
    return values[ranked(values)[0]]


def check_counts(pictures: int, scores: int, latents: int) -> None:
    """Every picture needs a score and, if latents are wired, a latent."""
    if not pictures:
        raise ValueError("there are no images to choose from: wire at least one")
    if scores != pictures:
        raise ValueError(
            f"expected a score per picture; got {scores} for {pictures}. Wire the scores output of "
            "DPT Alignment Score for the same images, not its mean"
        )
    if latents not in (0, pictures):
        raise ValueError(
            f"expected a latent per picture; got {latents} for {pictures}. Wire the latent the "
            "images were decoded from"
        )
