"""Types of wires that ComfyUI has no class for."""

from comfy_api.latest import io

DataIO = io.Custom("DPT_DATA")
LossMapIO = io.Custom("LOSS_MAP")
