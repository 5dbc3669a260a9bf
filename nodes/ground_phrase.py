"""Find what a phrase names in pictures."""

import json

import torch
from comfy_api.latest import io

from ..dpt_core.annotation import annotate
from ..dpt_core.grounding import MAX_BOXES, THRESHOLD, Grounding, box_mask, select_boxes
from ..dpt_core.plots import drawn
from .host.adapter import AdapterIO, LoadedAdapter
from .host.aliases import search_aliases
from .host.grounding import find_boxes, phrase_in_words
from .host.pictures import to_image, to_pictures
from .host.progress import show

BoxesIO = io.Custom("BOUNDING_BOX")  # hosts before 0.30 have no class for it


class GroundPhrase(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DPT_GroundPhrase",
            display_name="DPT Ground Phrase",
            category="DPT",
            description="Finds what a phrase names: boxes, a mask, and the pictures with the boxes "
            "drawn in. Nothing found is no error: the mask is empty then.",
            inputs=[
                io.Model.Input("model", tooltip="The model the adapter was trained on."),
                AdapterIO.Input("adapter", tooltip="The adapter that finds things."),
                io.Vae.Input("vae", tooltip="Encodes the pictures."),
                io.Image.Input("images", tooltip="The pictures to search, of any size."),
                io.Conditioning.Input(
                    "phrase",
                    tooltip='What to find ("a blue square"), from DPT Text Encode or '
                    "CLIPTextEncode.",
                ),
                io.Float.Input(
                    "threshold",
                    default=THRESHOLD,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Boxes need a confidence above this. Lower finds more and errs more.",
                ),
                io.Int.Input(
                    "max_boxes",
                    default=MAX_BOXES,
                    min=1,
                    max=1000,
                    tooltip="Boxes per picture at most, the most confident ones.",
                ),
                io.Int.Input(
                    "timestep",
                    default=500,
                    min=0,
                    max=999,
                    tooltip="Noise level at which the adapter reads: 0 is clean, 999 all noise.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="The seed of the noise; every picture gets the same noise.",
                ),
            ],
            outputs=[
                BoxesIO.Output(
                    display_name="boxes",
                    tooltip="Per picture a list of x, y, width, height (pixels) and score.",
                ),
                io.Mask.Output(display_name="mask", tooltip="Per picture, 1 inside the boxes."),
                io.Image.Output(display_name="annotated", tooltip="The pictures with the boxes."),
                io.String.Output(display_name="json", tooltip="The boxes as JSON."),
            ],
            hidden=[io.Hidden.unique_id],
            **search_aliases("find object", "detect", "bounding box", "locate phrase", "segment"),
        )

    @classmethod
    def execute(
        cls,
        model: object,
        adapter: LoadedAdapter,
        vae: object,
        images: torch.Tensor,
        phrase: list,
        threshold: float,
        max_boxes: int,
        timestep: int,
        seed: int,
    ) -> io.NodeOutput:
        every = find_boxes(model, adapter, vae, images, phrase, timestep, seed)
        found = [select_boxes(*each, threshold, max_boxes) for each in every]
        name = phrase_in_words(phrase)
        annotated = torch.stack(
            [marked(image, each, name) for image, each in zip(images[..., :3], found, strict=True)]
        )
        masks = torch.stack([box_mask(each.boxes, *images.shape[1:3]) for each in found])
        boxes = [as_boxes(each) for each in found]
        counts = [f"image {place + 1}: {len(each)} found" for place, each in enumerate(boxes)]
        show(cls.hidden.unique_id, "\n".join(counts))
        return io.NodeOutput(boxes, masks, annotated, json.dumps(boxes))


def as_boxes(found: Grounding) -> list[dict[str, float]]:
    """One picture's boxes in the shape of the host's own detectors."""
    return [
        {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0, "score": score}
        for (x0, y0, x1, y1), score in zip(found.boxes.tolist(), found.scores.tolist(), strict=True)
    ]


def marked(image: torch.Tensor, found: Grounding, name: str) -> torch.Tensor:
    """A picture `[H, W, 3]` in [0, 1] with its boxes; untouched where there are none."""
    if not len(found.boxes):
        return image.cpu().float()
    (pixels,) = to_pictures([image[None]])
    boxes, scores = found.boxes.tolist(), found.scores.tolist()
    return to_image(drawn(annotate, pixels, boxes, scores, name, instead=pixels))[0]
