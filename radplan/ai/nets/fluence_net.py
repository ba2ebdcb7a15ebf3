"""Networks on maps of control points: fluence from what the beam's eye sees, and a judge of single maps."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from radplan.ai.nets.blocks import Norm
from radplan.ai.nets.resunet import ResUNet

Tensor = Any

_SLOPE = 0.2
"""Of the judge's leaky rectifiers below 0."""


class FluenceNet(nn.Module):  # type: ignore[misc]
    """Maps (channels, control points, v, u) to one map (control points, v, u), round the patient without an end.

    A U-Net sees the maps with as many of the other end's control points joined at either end as it looks far, and is
    cut back; a perceptron of each pixel sees its features and the maps themselves, whose levels normalisation takes
    away.

    Source: Arberet et al., arXiv 2603.06338 (2026), which pads by zeros.

    Parameters
    ----------
    channels : int
        Maps that come in.
    widths : sequence of int
        Of the U-Net's levels.
    start : float
        What it returns before it is trained.
    norm : {"instance", "batch"}
        Kind of normalisation.
    """

    def __init__(self, channels: int, widths: Sequence[int], start: float, norm: Norm = "instance") -> None:
        super().__init__()
        self.round = 2 ** (len(widths) + 1)
        self.trunk = ResUNet(channels, widths, norm)
        self.head = nn.Sequential(nn.Conv3d(channels + widths[0], widths[0], 1), nn.GELU(), nn.Conv3d(widths[0], 1, 1))
        nn.init.zeros_(self.head[-1].weight)
        nn.init.constant_(self.head[-1].bias, start)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the map (control points, v, u)."""
        return self.head(seen_around(self.trunk, maps, self.round))[0, 0].float()


def seen_around(trunk: nn.Module, maps: Tensor, reach: int) -> Tensor:
    """Return a trunk's features beside the maps themselves (1, features + channels, control points, v, u).

    The trunk sees as many of the other end's control points joined at either end as `reach` says.
    """
    count = maps.shape[1]
    turned = torch.arange(-reach, count + reach, device=maps.device) % count
    seen = maps[:, turned][None]
    return torch.cat([trunk(seen), seen], dim=1)[:, :, reach : reach + count]


class Discriminator(nn.Module):  # type: ignore[misc]
    """A judge of single maps (maps, v, u): above 0 for what apertures give, below for what they do not.

    Levels of two convolutions with a shortcut, halved by averages; no normalisation.

    Source: Karras et al., CVPR 2020, for the blocks; Arberet et al., arXiv 2603.06338 (2026), for its use on fluence.

    Parameters
    ----------
    widths : sequence of int
        Of the levels.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, widths[0], 3, padding=1)
        pairs = list(itertools.pairwise(widths))
        self.first = nn.ModuleList([nn.Conv2d(a, b, 3, padding=1) for a, b in pairs])
        self.second = nn.ModuleList([nn.Conv2d(b, b, 3, padding=1) for _, b in pairs])
        self.shortcut = nn.ModuleList([nn.Conv2d(a, b, 1) for a, b in pairs])
        self.last = nn.Linear(widths[-1], 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Return a score of each map (maps,)."""
        x = functional.leaky_relu(self.stem(maps[:, None]), _SLOPE)
        for first, second, shortcut in zip(self.first, self.second, self.shortcut, strict=True):
            h = functional.leaky_relu(second(functional.leaky_relu(first(x), _SLOPE)), _SLOPE)
            x = functional.avg_pool2d((h + shortcut(x)) / 2**0.5, 2, ceil_mode=True)
        return self.last(x.mean(dim=(2, 3)))[:, 0]
