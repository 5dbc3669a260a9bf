"""A node pack for the test server: random narrow models of the real architectures."""

import sys
from pathlib import Path

from comfy_api.latest import ComfyExtension, io

sys.path.append(str(Path(__file__).resolve().parents[2]))  # tests/, for tiny_models

PREFIX = "Tiny_"
"""Apart from the rest of an id: readers of source code list literal ids as the pack's own."""


class TinyModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{PREFIX}Model",
            category="test",
            inputs=[io.String.Input("family", default="sd15")],
            outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls, family: str) -> io.NodeOutput:
        from tiny_models import tiny_clip, tiny_model, tiny_vae

        return io.NodeOutput(tiny_model(family), tiny_clip(), tiny_vae())


class TinySDXL(io.ComfyNode):
    """CheckpointLoaderSimple for SDXL: UNet and both text encoders of its build, narrow."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{PREFIX}SDXL",
            category="test",
            inputs=[],
            outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        import comfy.sd
        import tiny_models as tiny
        from comfy.sdxl_clip import SDXLClipModel, SDXLTokenizer
        from comfy.supported_models_base import ClipTarget

        width = tiny.TEXT_WIDTH // 2  # the UNet reads both encoders side by side
        text = {
            "hidden_size": width, "intermediate_size": 2 * width, "num_attention_heads": 4,
            "num_hidden_layers": 3,
        }  # fmt: skip
        clip = comfy.sd.CLIP(
            ClipTarget(SDXLTokenizer, SDXLClipModel),
            model_options={"clip_l_model_config": text, "clip_g_model_config": text},
        )
        config = tiny.unet_config("sdxl") | {"adm_in_channels": width + 6 * 256}
        model = tiny.model_patcher(tiny.narrow("sdxl", config))
        tiny.randomise(clip.cond_stage_model, seed=0)
        tiny.randomise(model.model.diffusion_model, seed=0)
        return io.NodeOutput(model, clip, tiny.tiny_vae())


class TinyText(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{PREFIX}Text",
            category="test",
            inputs=[io.Int.Input("seed", default=0)],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, seed: int) -> io.NodeOutput:
        from tiny_models import tiny_text

        return io.NodeOutput(tiny_text(seed))


class TinyDemo(io.ComfyNode):
    """DPT_DemoModel with weights from a folder of the tests."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{PREFIX}Demo",
            category="test",
            inputs=[io.String.Input("folder")],
            outputs=[
                io.Model.Output(),
                io.Clip.Output(),
                io.Vae.Output(),
                io.Custom("DPT_ADAPTER").Output(),
            ],
        )

    @classmethod
    def execute(cls, folder: str) -> io.NodeOutput:
        pack = "dpt-t2i.nodes.host.demo"  # the host names a pack's modules by its path
        demo = next(module for name, module in sys.modules.items() if name.endswith(pack))
        return io.NodeOutput(*demo.load_demo(folder))


class Extension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [TinyModel, TinySDXL, TinyText, TinyDemo]


async def comfy_entrypoint() -> Extension:
    return Extension()
