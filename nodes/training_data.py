"""Captioned pictures to train an adapter on."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import folder_paths
from comfy_api.latest import io

from ..dpt_core.plots import drawn
from ..dpt_core.training.data.images import LARGEST, check_size
from ..dpt_core.training.data.rows import NEGATIVES, with_negatives
from .ground_phrase import BoxesIO
from .host.aliases import search_aliases
from .host.pictures import to_image
from .host.progress import show
from .host.selection import split_images
from .host.wires import DataIO

if TYPE_CHECKING:
    from ..dpt_core.training.data.rows import CaptionedPictures

SCENES = {f"demo scenes ({count:,})": count for count in (2000, 200)}
"""Choices that need no folder."""


class TrainingData(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DPT_TrainingData",
            display_name="DPT Training Data",
            category="DPT",
            description="Captioned pictures to train an adapter on, from a folder or from other "
            "nodes, with captions that look right and are wrong (hard negatives).",
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=[*SCENES, *folder_paths.get_input_subfolders()],
                    tooltip="A folder in input/: pictures with a .txt of the same name beside "
                    "each, in subfolders such as 10_cats too; or captions.jsonl. The demo scenes "
                    "are for DPT Demo Model. Not used where images are wired.",
                ),
                io.Combo.Input(
                    "negatives",
                    options=list(NEGATIVES),
                    tooltip="Where hard negatives come from: auto makes them of English captions "
                    "where the file names none; file takes only those of captions.jsonl; none "
                    "takes other pictures' captions.",
                ),
                io.Int.Input(
                    "size",
                    default=512,
                    min=64,
                    max=LARGEST,
                    step=8,
                    tooltip="Side of the squares that pictures become, in pixels: 512 for SD 1.5, "
                    "1024 for SDXL; 512 is enough for most. Demo scenes have 128.",
                ),
                io.Image.Input("images", optional=True, tooltip="Pictures, in place of a folder."),
                io.String.Input(
                    "captions",
                    optional=True,
                    force_input=True,
                    tooltip="A caption for each picture.",
                ),
                BoxesIO.Input(
                    "boxes",
                    optional=True,
                    tooltip="Boxes of each picture, from a detector; their labels are the phrases.",
                    extra_dict={"forceInput": True},  # 0.30 would ask for one box to be typed
                ),
                io.String.Input(
                    "parts",
                    optional=True,
                    force_input=True,
                    tooltip="What each prompt consists of, from DPT Scene Prompts, in place of "
                    "captions: pictures that do not show their prompt become hard negatives. Needs "
                    "a detector's boxes; the demo's shapes do not.",
                ),
            ],
            outputs=[
                DataIO.Output(display_name="data", tooltip="For DPT Train Adapter."),
                io.Image.Output(
                    display_name="preview",
                    tooltip="Some examples with captions, hard negatives and boxes.",
                ),
            ],
            **search_aliases("dataset", "load image text dataset", "captions"),
            hidden=[io.Hidden.unique_id],
            is_input_list=True,
        )

    @classmethod
    def fingerprint_inputs(cls, folder: list, **inputs: Any) -> Any:
        """Files of a folder may change while the node does not."""
        if not folder or folder[0] in SCENES:
            return ""
        place = os.path.join(folder_paths.get_input_directory(), folder[0])
        return max((os.path.getmtime(each[0]) for each in os.walk(place)), default="")

    @classmethod
    def execute(
        cls,
        folder: list,
        negatives: list,
        size: list,
        images: list | None = None,
        captions: list | None = None,
        boxes: list | None = None,
        parts: list | None = None,
    ) -> io.NodeOutput:
        from ..dpt_core.negatives import hard_negatives
        from ..dpt_core.training.report import data_sheet

        told = ""
        if parts:
            data, told = read_drawn(size[0], images, captions, boxes, parts)
        else:
            data = read_data(folder[0], size[0], images, captions, boxes)
        made = with_negatives(data, negatives[0], hard_negatives)
        phrases = sum(len(row.boxes) for row in data.grounding)
        show(
            cls.hidden.unique_id,
            f"{len(data.names())} pictures, {made.captions} captions, {made.with_negative} with a "
            f"hard negative, {phrases} boxes{told}",
        )
        return io.NodeOutput(made.data, to_image(drawn(data_sheet, made.data)))


def read_data(
    folder: str, size: int, images: list | None, captions: list | None, boxes: list | None
) -> CaptionedPictures:
    """Data from what is wired, or else from a folder.

    Raises:
        ValueError: captions or boxes without images; an impossible size; or see the readers.
    """
    from ..dpt_core.demo.scenes import demo_scenes
    from ..dpt_core.training.data.captioned import from_lists, read_folder

    check_size(size)
    if images:
        pictures = [each[0, ..., :3] for each in split_images(images)]
        texts = [text for each in captions or [] for text in _listed(each)]
        return from_lists(pictures, texts, None if boxes is None else boxes_of(boxes), size)
    if captions or boxes:
        raise ValueError("captions and boxes are wired, images are not: wire their pictures too")
    if folder in SCENES:
        return demo_scenes(SCENES[folder])
    return read_folder(os.path.join(folder_paths.get_input_directory(), folder), size)


def read_drawn(
    size: int, images: list | None, captions: list | None, boxes: list | None, parts: list
) -> tuple[CaptionedPictures, str]:
    """Data of pictures that were drawn for known prompts, and what became of them in words.

    Raises:
        ValueError: captions beside parts, no images, parts that are no JSON; or see
            :func:`~.dpt_core.training.data.drawn.from_drawn`.
    """
    from ..dpt_core.demo.scenes import shapes_boxes
    from ..dpt_core.training.data.drawn import from_drawn

    check_size(size)
    if captions or not images:
        given = "captions too" if captions else "no images"
        raise ValueError(
            f"parts are wired, and {given}: wire the pictures that were drawn for the prompts, and "
            "no captions"
        )
    texts = [text for each in parts for text in _listed(each)]
    if len(texts) == len(images):  # a batch for each prompt
        texts = [text for text, batch in zip(texts, images, strict=True) for _ in batch]
    try:
        said = [json.loads(text) for text in texts]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"expected parts as JSON, as DPT Scene Prompts gives them ({error}): wire its output "
            "parts"
        ) from error
    pictures = [each[0, ..., :3] for each in split_images(images)]
    seen = shapes_boxes(pictures, said) if boxes is None else boxes_of(boxes)
    found = from_drawn(pictures, said, seen, size)
    told = f"; {found.right} right, {found.wrong} wrong, {found.unread} left out"
    return found.data, told


def boxes_of(values: list) -> list[list[dict]]:
    """Boxes for each picture, of one detector's answer or of one for each picture."""
    found: list[list[dict]] = []
    for value in values:
        if isinstance(value, dict):
            found.append([value])
        elif value and all(isinstance(each, list) for each in value):
            found += boxes_of(value)
        else:
            found.append(list(value))
    return found


def _listed(value: Any) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value]
