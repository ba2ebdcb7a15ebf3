"""A residual U-Net on a coarse grid with a perceptron on the fine one, for dose in the voxels where it counts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from radplan.ai.nets.blocks import Norm, ResidualBlock
from radplan.errors import InputError

Tensor = Any

_AT_ONCE = 8192
"""Voxels that the perceptron sees at once: few enough to stay in the processor's cache."""


class ResUNet(nn.Module):  # type: ignore[misc]
    """Encoder and decoder of residual blocks, maximum pooling down, trilinear interpolation up, skips joined.

    Odd sizes are pooled upwards (ceil) and interpolated to the skip's size.

    Source: Ronneberger et al., MICCAI 2015; Zhang et al., IEEE GRSL 15 (2018) 749.

    Parameters
    ----------
    channels : int
        Channels that come in.
    widths : sequence of int
        Channels of each level, from fine to coarse; as many go out as the first.
    norm : {"instance", "batch"}
        Kind of normalisation.
    """

    def __init__(self, channels: int, widths: Sequence[int], norm: Norm = "instance") -> None:
        super().__init__()
        if not widths:
            raise InputError("a U-Net needs at least one level: give its widths")
        ins = (channels, *widths[:-1])
        self.down = nn.ModuleList([ResidualBlock(a, b, norm) for a, b in zip(ins, widths, strict=True)])
        pairs = list(itertools.pairwise(widths))[::-1]
        self.up = nn.ModuleList([ResidualBlock(fine + coarse, fine, norm) for fine, coarse in pairs])

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(batch, widths[0], z, y, x)`` of ``(batch, channels, z, y, x)``."""
        skips = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else functional.max_pool3d(x, 2, ceil_mode=True))
            skips.append(x)
        for block, skip in zip(self.up, skips[-2::-1], strict=True):
            grown = functional.interpolate(x, size=skip.shape[2:], mode="trilinear", align_corners=False)
            x = block(torch.cat([grown, skip], dim=1))
        return x


class DoseNet(nn.Module):  # type: ignore[misc]
    r"""Dose in chosen voxels: a U-Net on means over `pool`^3 voxels, and a perceptron on each voxel's own channels.

    The U-Net's features are interpolated to the voxels and joined to the channels there; the result is
    :math:`\mathrm{softplus}(4y)/4` of the perceptron's output y, so that dose is positive and linear where it is high.
    Air costs nothing in the perceptron, and the U-Net sees the whole patient.

    Parameters
    ----------
    channels : int
        Channels in each voxel; the U-Net is given one more, where dose counts.
    widths : sequence of int
        Of the U-Net's levels.
    pool : int
        Voxels along each axis that the U-Net sees as one.
    head : sequence of int
        Hidden widths of the perceptron.
    norm : {"instance", "batch"}
        Kind of normalisation of the U-Net.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        pool: int = 4,
        head: Sequence[int] = (64, 64),
        norm: Norm = "instance",
    ) -> None:
        super().__init__()
        self.pool, self.levels = pool, len(widths)
        self.trunk = ResUNet(channels + 1, widths, norm)
        sizes = (channels + widths[0], *head)
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(sizes):
            layers += [nn.Linear(a, b), nn.GELU()]
        self.head = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))

    def forward(self, channels: Tensor, voxels: Tensor, shape: tuple[int, int, int], wanted: Tensor) -> Tensor:
        """Return dose (k,) in the units trained on.

        Parameters
        ----------
        channels : tensor of shape (channels, n)
            In the voxels where dose counts.
        voxels : tensor of shape (n,)
            Their flat indices.
        shape : (int, int, int)
            Of the grid.
        wanted : tensor of shape (k,)
            Which of the n are predicted.
        """
        volume, flat = coarse_volume(channels, voxels, shape, self.pool, self.levels)
        features = self.trunk(volume)
        outputs = []
        for part in wanted.split(_AT_ONCE):
            local = channels[:, part].T
            around = features_at(features, flat[part], self.pool)[0]
            outputs.append(self.head(torch.cat([local, around.to(local.dtype)], dim=1))[:, 0].float())
        return functional.softplus(4.0 * torch.cat(outputs)) / 4.0


def coarse_volume(
    channels: Tensor, voxels: Tensor, shape: Sequence[int], pool: int, levels: int
) -> tuple[Tensor, Tensor]:
    """Return channels and where dose counts as means over `pool`^3 voxels (1, channels + 1, z, y, x), and places.

    The volume is padded so that it can be halved ``levels - 1`` times; places (n,) are the voxels' flat indices in the
    padded grid of single voxels.
    """
    step = pool * 2 ** (levels - 1)
    padded = tuple(-(-n // step) * step for n in shape)
    flat = _in_padded(voxels, shape, padded)
    nz, ny, nx = (n // pool for n in padded)
    z, y, x = flat // (padded[1] * padded[2]), flat // padded[2] % padded[1], flat % padded[2]
    coarse = (z // pool * ny + y // pool) * nx + x // pool
    volume = channels.new_zeros((channels.shape[0] + 1, nz * ny * nx))
    volume[:-1].index_add_(1, coarse, channels)
    volume[-1].index_add_(0, coarse, torch.ones_like(channels[0]))
    volume = volume / pool**3
    return volume.view(1, -1, nz, ny, nx).contiguous(memory_format=torch.channels_last_3d), flat


def features_at(features: Tensor, flat: Tensor, pool: int) -> Tensor:
    """Return features (batch, k, width) of a volume (batch, width, z, y, x) in voxels of the padded grid (k,)."""
    nz, ny, nx = (pool * n for n in features.shape[2:])
    if pool == 1:
        return features.permute(0, 2, 3, 4, 1).reshape(features.shape[0], -1, features.shape[1])[:, flat]
    index = torch.stack([flat % nx, flat // nx % ny, flat // (nx * ny)], dim=1)
    size = torch.tensor((nx, ny, nz), device=flat.device)
    points = ((2 * index + 1) / size - 1.0).to(features.dtype).view(1, -1, 1, 1, 3)
    points = points.expand(features.shape[0], -1, -1, -1, -1)
    sampled = functional.grid_sample(features, points, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled[:, :, :, 0, 0].transpose(1, 2)


def _in_padded(voxels: Tensor, shape: Sequence[int], padded: Sequence[int]) -> Tensor:
    """Return flat indices into a grid as flat indices into one that is larger at its ends."""
    _, ny, nx = shape
    return (voxels // (ny * nx) * padded[1] + voxels // nx % ny) * padded[2] + voxels % nx
