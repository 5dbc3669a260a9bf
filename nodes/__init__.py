"""The pack's nodes. Each file holds one node; what they share lies in `nodes.host`."""

from comfy_api.latest import ComfyExtension, io

from .alignment_score import AlignmentScore
from .apply_lora import ApplyLoRA
from .demo_model import DemoModel
from .ground_phrase import GroundPhrase
from .host.adapter import register_model_folder
from .ksampler import KSampler
from .load_adapter import LoadAdapter
from .select_best import SelectBest
from .self_correction import SelfCorrection
from .text_encode import TextEncode


class DPTExtension(ComfyExtension):
    """What ComfyUI asks for our node list."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        register_model_folder()
        return [
            LoadAdapter,
            ApplyLoRA,
            TextEncode,
            SelfCorrection,
            KSampler,
            AlignmentScore,
            SelectBest,
            GroundPhrase,
            DemoModel,
        ]
