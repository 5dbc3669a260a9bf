"""Compose prompts with known parts from word lists."""

import json
import random
from dataclasses import fields

from comfy_api.latest import io

from ..dpt_core.scene_prompts import SceneWords, scene_prompts, words_of
from .host.aliases import search_aliases

DEFAULTS = {field.name: field.default for field in fields(SceneWords)}


class ScenePrompts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        def words(name: str, tooltip: str) -> io.Input:
            listed = ", ".join(DEFAULTS[name])
            return io.String.Input(name, default=listed, multiline=True, tooltip=tooltip)

        return io.Schema(
            node_id="DPT_ScenePrompts",
            display_name="DPT Scene Prompts",
            category="DPT",
            description="Puts prompts together from word lists, and says what each consists of: "
            "pictures drawn for them teach an adapter without a data set of one's own.",
            inputs=[
                words("things", "What there may be, in the singular, with commas between."),
                words("attributes", "What things may be like: colours, materials, patterns."),
                words(
                    "relations",
                    "How two things may lie. Empty: no prompts with relations.",
                ),
                io.Int.Input(
                    "most",
                    default=DEFAULTS["most"],
                    min=1,
                    max=12,
                    tooltip="Things in a prompt at most. Models hardly count beyond four.",
                ),
                io.Int.Input(
                    "count", default=32, min=1, max=100000, tooltip="How many prompts to make."
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="The same lists and seed give the same prompts.",
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="prompts",
                    is_output_list=True,
                    tooltip="The prompts; a node after this one runs once for each.",
                ),
                io.String.Output(
                    display_name="parts",
                    is_output_list=True,
                    tooltip="What each prompt consists of, as JSON: phrases with thing, "
                    "attributes, count and place, and relations between them.",
                ),
                io.Int.Output(
                    display_name="seeds",
                    is_output_list=True,
                    tooltip="A seed for each prompt, to wire into a sampler's seed.",
                ),
            ],
            **search_aliases("prompt generator", "random prompts", "wildcards", "training prompts"),
        )

    @classmethod
    def execute(
        cls, things: str, attributes: str, relations: str, most: int, count: int, seed: int
    ) -> io.NodeOutput:
        lists = [words_of(each) for each in (things, attributes, relations)]
        made = scene_prompts(SceneWords(*lists, most), count, seed)
        return io.NodeOutput(
            [each.text for each in made],
            [json.dumps(each.parts, ensure_ascii=False) for each in made],
            [random.Random(f"{seed} {each.text}").randrange(2**32) for each in made],
        )
