"""Keep the best of many pictures."""

import logging

import torch
from comfy_api.latest import io
from comfy_execution.graph import ExecutionBlocker

from ..dpt_core.selection import ranked, select_best
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
            ],
            hidden=[io.Hidden.unique_id],
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
                return io.NodeOutput(*[ExecutionBlocker(None)] * 4)
            chosen = ranked(values)[:1]
        notes += [f"image {index + 1}: {values[index]:.4f}" for index in chosen]
        show(cls.hidden.unique_id, "\n".join(notes))
        kept = join_latents([latents[i] for i in chosen]) if latents else None
        return io.NodeOutput(
            join_images([pictures[index] for index in chosen]),
            kept or [ExecutionBlocker(NO_LATENT)],
            chosen,
            [values[index] for index in chosen],
        )


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
