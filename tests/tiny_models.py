"""Narrow models of the real architectures, built from the host's own classes with random weights.

Imported inside a running ComfyUI: by the host tests and by the test pack of the test server.
"""

from __future__ import annotations

import comfy.model_management as management
import comfy.ops
import comfy.sd
import comfy.supported_models as supported
import comfy.utils
import torch
from comfy import sd1_clip
from comfy.cldm.cldm import ControlNet as ControlNetModel
from comfy.controlnet import ControlNet
from comfy.model_patcher import ModelPatcher
from comfy.supported_models_base import ClipTarget

WIDTH = 32
TEXT_WIDTH = 64
FAMILIES = ("sd15", "sd21", "sd21v", "sdxl")


class NarrowV(supported.SD20):
    """SD 2.1 with velocity prediction."""

    def model_type(self, state_dict, prefix=""):
        return comfy.model_base.ModelType.V_PREDICTION


CLASSES = {"sd15": supported.SD15, "sd21": supported.SD20, "sd21v": NarrowV, "sdxl": supported.SDXL}


def unet_config(family: str) -> dict:
    """The host's UNet config of a family, narrow."""
    config = {
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": WIDTH,
        "num_res_blocks": [2, 2, 2, 2],
        "channel_mult": [1, 2, 2, 2],
        "context_dim": TEXT_WIDTH,
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_middle": 1,
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        "use_linear_in_transformer": family != "sd15",
        "adm_in_channels": None,
        "use_temporal_attention": False,
        "use_spatial_transformer": True,
        "legacy": False,
        "use_checkpoint": False,
    }
    if family == "sdxl":
        config |= {
            "num_res_blocks": [2, 2, 2],
            "channel_mult": [1, 2, 2],
            "num_classes": "sequential",
            "transformer_depth": [0, 0, 1, 1, 2, 2],
            "transformer_depth_middle": 2,
            "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2],
            "adm_in_channels": TEXT_WIDTH + 6 * 256,
        }
    return config


def narrow(family: str, config: dict):
    """The host's model config of a family."""
    model_config = CLASSES[family](config)
    if family != "sd15":
        model_config.unet_config["num_head_channels"] = 16
    return model_config


def model_patcher(model_config, dtype: torch.dtype = torch.float32) -> ModelPatcher:
    """A model as the host's loaders give it; its weights are still to be set."""
    device = torch.device("cpu")
    model_config.set_inference_dtype(dtype, None if dtype == torch.float32 else torch.float32)
    model = model_config.get_model({}, "", device=device)
    return ModelPatcher(model, load_device=management.get_torch_device(), offload_device=device)


def randomise(module: torch.nn.Module, seed: int) -> None:
    """Weights that keep activations at unit scale."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():
            continue
        values = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim > 1:
            values *= tensor[0].numel() ** -0.5
        else:
            values *= 0.1
            values += "norm" in name and name.endswith("weight")
        tensor.copy_(values)


def tiny_model(family: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> ModelPatcher:
    """A random narrow model of a family."""
    patcher = model_patcher(narrow(family, unet_config(family)), dtype)
    randomise(patcher.model.diffusion_model, seed)
    return patcher


def golden_model(stack) -> ModelPatcher:
    """The golden UNet in the host's UNet."""
    golden = stack.unet_config
    multiples = [width // golden["block_out_channels"][0] for width in golden["block_out_channels"]]
    family = "sd21" if golden["use_linear_projection"] else "sd15"
    config = unet_config(family) | {
        "channel_mult": multiples,
        "context_dim": golden["cross_attention_dim"],
    }
    model_config = CLASSES[family](config)
    heads = golden["attention_head_dim"]
    if isinstance(heads, list):
        width = golden["block_out_channels"][0] // heads[0]
        model_config.unet_config |= {"num_heads": -1, "num_head_channels": width}
    patcher = model_patcher(model_config)
    names = comfy.utils.unet_to_diffusers(config)
    weights = {names[name]: tensor for name, tensor in stack.load("unet").items()}
    patcher.model.diffusion_model.load_state_dict(weights)
    return patcher


def tiny_clip(seed: int = 0) -> comfy.sd.CLIP:
    """A narrow CLIP-L with the real tokenizer."""
    config = {
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 2 * TEXT_WIDTH,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "projection_dim": TEXT_WIDTH,
    }
    target = ClipTarget(sd1_clip.SD1Tokenizer, sd1_clip.SD1ClipModel)
    clip = comfy.sd.CLIP(target, model_options={"clip_l_model_config": config})
    randomise(clip.cond_stage_model.clip_l.transformer.text_model, seed)
    projection = clip.cond_stage_model.clip_l.transformer.text_projection.weight
    projection.copy_(torch.eye(TEXT_WIDTH))
    return clip


def narrow_vae(**sizes) -> comfy.sd.VAE:
    """A VAE with factor 8; its weights are still to be set."""
    ddconfig = {
        "double_z": True,
        "z_channels": 4,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "attn_resolutions": [],
        "dropout": 0.0,
        **sizes,
    }
    return comfy.sd.VAE(sd={}, config={"params": {"ddconfig": ddconfig, "embed_dim": 4}})


def tiny_vae(seed: int = 0) -> comfy.sd.VAE:
    """A random narrow VAE."""
    vae = narrow_vae(ch=32, ch_mult=[1, 1, 1, 1], num_res_blocks=1)
    randomise(vae.first_stage_model, seed)
    return vae


def tiny_adapter(seed: int = 0, lora_for: ModelPatcher | None = None, **fields):
    """A random adapter that fits the tiny models, loaded as the pack loads one.

    Args:
        seed: of the weights.
        lora_for: bring a random LoRA for this model's attention projections.
        fields: of the adapter's config, to change.
    """
    from dpt_pack.dpt_core.adapter import DiscriminativeAdapter
    from dpt_pack.dpt_core.checkpoint import Checkpoint
    from dpt_pack.dpt_core.config import AdapterConfig
    from dpt_pack.nodes.host.adapter import managed

    sizes = {
        "in_channels": 2 * WIDTH,
        "text_width": TEXT_WIDTH,
        "width": 32,
        "feed_forward": 64,
        "grounding_queries": 10,
        "phrase_width": 16,
    }
    config = AdapterConfig(**{**sizes, **fields})
    with torch.inference_mode(False), torch.random.fork_rng():
        torch.manual_seed(seed)
        adapter = DiscriminativeAdapter(config).requires_grad_(False).eval()
    lora = random_lora(lora_for, seed) if lora_for is not None else {}
    return managed("tiny.safetensors", Checkpoint(config, adapter, lora))


def random_lora(model: ModelPatcher, seed: int = 0, rank: int = 4) -> dict[str, torch.Tensor]:
    """A random LoRA on every attention projection, under the published names."""
    from dpt_pack.dpt_core.lora import lora_key

    generator = torch.Generator().manual_seed(seed)
    names = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    weights = model.model.diffusion_model.state_dict()
    lora = {}
    for name, host_name in sorted(names.items()):
        module = name.removesuffix(".weight")
        if module.endswith((".to_q", ".to_k", ".to_v", ".to_out.0")) and host_name in weights:
            out, into = weights[host_name].shape
            down = torch.randn(rank, into, generator=generator)
            lora[lora_key(module, "down")] = down / into**0.5
            lora[lora_key(module, "up")] = torch.randn(out, rank, generator=generator) * 0.3
    return lora


def tiny_text(seed: int = 0, batch: int = 1, family: str = "sd15") -> list:
    """A CONDITIONING of the tiny text width with its text vector."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(batch, 77, TEXT_WIDTH, generator=generator)
    vector = hidden[:, 5]
    extra = {"pooled_output": vector, "dpt_text": {"eos_hidden": vector, "pooled": vector}}
    return [[hidden, extra]]


def tiny_control_net(seed: int = 0) -> ControlNet:
    """The host's ControlNet for the tiny SD 1.x model, with random weights."""
    config = unet_config("sd15") | {"num_heads": 8, "hint_channels": 3}
    for unknown in ("out_channels", "transformer_depth_output"):
        config.pop(unknown)
    operations = comfy.ops.disable_weight_init
    model = ControlNetModel(**config, operations=operations, device="cpu")
    randomise(model, seed)
    return ControlNet(model.eval(), load_device=management.get_torch_device())


def with_control(conditioning: list, strength: float = 1.0) -> list:
    """A CONDITIONING with a ControlNet on a random hint, as ControlNetApply gives it."""
    hint = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(4))
    control = tiny_control_net().set_cond_hint(hint, strength, (0.0, 1.0))
    return [
        [hidden, {**extra, "control": control, "control_apply_to_uncond": True}]
        for hidden, extra in conditioning
    ]
