"""Encode a prompt with the text vector that alignment is measured against."""

import logging

from comfy_api.latest import io

from .host.aliases import search_aliases
from .host.demo import outside_its_world
from .host.encode import encode_prompt, unread_part
from .host.progress import show

logger = logging.getLogger(__name__)


class TextEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DPT_TextEncode",
            display_name="DPT Text Encode",
            category="DPT",
            description="CLIPTextEncode that also attaches the text vector DPT adapters compare "
            "pictures with. Needed on SD 2.x, SDXL and most transformers; on SD 1.x and Flux.1 "
            "CLIPTextEncode serves too.",
            inputs=[
                io.Clip.Input("clip", tooltip="Text encoder of the model you sample with."),
                io.String.Input(
                    "text",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="The prompt. Weights such as (red:1.2) and clip-skip shape the picture "
                    "as usual; the alignment score reads the plain words, as in the paper.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="conditioning", tooltip="Use it wherever CONDITIONING is taken."
                )
            ],
            hidden=[io.Hidden.unique_id],
            **search_aliases("prompt", "DPT prompt"),
        )

    @classmethod
    def execute(cls, clip: object, text: str) -> io.NodeOutput:
        conditioning = encode_prompt(clip, text)
        if said := unread_part(conditioning) or outside_its_world(clip, text):
            logger.warning("DPT: %s", said)
            show(cls.hidden.unique_id, said)
        return io.NodeOutput(conditioning)
