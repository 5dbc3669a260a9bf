"""DPT for ComfyUI: text-to-image models that draw what the prompt says (arXiv 2403.04321)."""

WEB_DIRECTORY = "./nodes/web"


async def comfy_entrypoint():
    """Give ComfyUI our nodes; imported here so that loading the package alone costs nothing."""
    import logging

    try:
        from .nodes import DPTExtension
    except Exception:
        logging.getLogger(__name__).exception("DPT could not load its nodes")
        raise
    return DPTExtension()
