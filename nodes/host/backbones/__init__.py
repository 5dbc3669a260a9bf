"""Families of denoising networks in the host: one entry each in :mod:`.registry`."""
