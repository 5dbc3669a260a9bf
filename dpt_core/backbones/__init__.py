"""Families of denoising networks: where one is read, what noise it sees, which text vector it has.

One file a family; :mod:`.registry` finds the one of a diffusers pipeline. The host's families live
in `nodes/host/backbones`.
"""
