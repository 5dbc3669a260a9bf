"""An adapter for another network, started from one that can read already.

Only an adapter's first layer depends on the network: what it makes of a noisy latent is fitted by
least squares, so that it is what the old adapter gets from its own network, for the same picture
under the same noise. Probing then starts from there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..adapter import DiscriminativeAdapter
from ..backbones.base import read_features
from ..config import AdapterConfig
from ..training.backbone import LEVELS, Backbone

SHARES = (0.04, 0.93)
"""Least and largest share of noise in a latent: the UNet knows no others."""

RIDGE = 1e-3
"""Share of the mean energy of the features that is added to every direction."""


class Pictures:
    """Noisy pictures, as two networks see them.

    Args:
        latents: `[N, C, h, w]`, scaled.
        texts: what they show.
        seed: of noise and levels.
    """

    def __init__(self, latents: torch.Tensor, texts: Sequence[str], seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._latents, self._texts = latents, list(texts)
        self._noise = torch.randn(latents.shape, generator=generator)
        least, most = SHARES
        self._share = least + (most - least) * torch.rand(len(latents), generator=generator)

    @torch.no_grad()
    def features(self, backbone: Backbone, tap: str) -> torch.Tensor:
        """`[N, C, h, w]` at a tap; noise has the same share of a latent in every network."""
        levels = torch.arange(LEVELS)
        alpha, scale = backbone.model.path.weights(levels)
        share = (scale / (alpha + scale)).to(self._share)
        levels = levels[torch.searchsorted(share, self._share).clamp(max=LEVELS - 1)]
        found = []
        for rows in torch.arange(len(levels)).split(32):
            texts = [self._texts[row] for row in rows]
            latents, noise = self._latents[rows], self._noise[rows]
            inputs = backbone.model.conditioning(texts, latents.shape[-2:])
            call = backbone.noised(latents, noise, levels[rows], inputs)
            found.append(read_features(backbone.model, tap, call)[0].float())
        return torch.cat(found)


@torch.no_grad()
def transferred(
    adapter: DiscriminativeAdapter,
    config: AdapterConfig,
    old: torch.Tensor,
    new: torch.Tensor,
) -> tuple[DiscriminativeAdapter, float]:
    """An adapter that makes of new features what another makes of old ones.

    Args:
        adapter: the one that can read.
        config: of the one that is made; it differs in what reads the network alone.
        old, new: `[N, C, h, w]` features of both networks for the same noisy pictures; cells come
            out alike.

    Returns:
        The new adapter, and the share of the variance of what comes in that it has right.
    """
    made = DiscriminativeAdapter(config)
    taken = {
        key: value for key, value in adapter.state_dict().items()
        if not key.startswith("input_proj.")
    }  # fmt: skip
    made.load_state_dict(taken, strict=False)
    first = made.input_proj
    wanted = adapter.input_proj(old).movedim(1, -1).flatten(0, -2).double()
    cells = torch.nn.functional.unfold(new.float(), config.patch, stride=config.patch)
    cells = cells.movedim(1, -1).flatten(0, -2).double()
    middle, target = cells.mean(0), wanted.mean(0)
    centred = cells - middle
    energy = centred.T @ centred
    energy.diagonal().add_(RIDGE * energy.diagonal().mean())
    weight = torch.linalg.solve(energy, centred.T @ (wanted - target)).T
    first.weight.copy_(weight.view_as(first.weight))
    first.bias.copy_(target - weight @ middle)
    missed = (centred @ weight.T - (wanted - target)).square().mean()
    return made, float(1 - missed / (wanted - target).square().mean())
