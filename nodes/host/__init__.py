"""Where the method meets the host: one concern of ComfyUI per file."""
