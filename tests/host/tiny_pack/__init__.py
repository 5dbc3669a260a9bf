"""A node pack for the test server: random narrow models of the real architectures."""

import sys
from pathlib import Path

from comfy_api.latest import ComfyExtension, io

sys.path.append(str(Path(__file__).resolve().parents[2]))  # tests/, for tiny_models


class TinyModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Tiny_Model",
            category="test",
            inputs=[io.String.Input("family", default="sd15")],
            outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls, family: str) -> io.NodeOutput:
        from tiny_models import tiny_clip, tiny_model, tiny_vae

        return io.NodeOutput(tiny_model(family), tiny_clip(), tiny_vae())


class TinyText(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Tiny_Text",
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
            node_id="Tiny_Demo",
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
        return [TinyModel, TinyText, TinyDemo]


async def comfy_entrypoint() -> Extension:
    return Extension()
