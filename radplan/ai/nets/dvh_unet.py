"""A U-Net from anatomy and wished DVHs to dose, after Ma et al.: anatomy is read once, many wishes are answered."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from radplan.ai.nets.blocks import Norm, ResidualBlock
from radplan.ai.nets.resunet import coarse_volume, features_at
from radplan.errors import InputError

Tensor = Any
Conditioning = Literal["concat", "film", "both", "none"]

_EDGE = 12.5
"""Distances are in 50 mm; dose falls beside a target within 4 mm."""


class DvhUNet(nn.Module):  # type: ignore[misc]
    r"""Dose in chosen voxels for each of several DVH codes, of one anatomy.

    An encoder of residual blocks sees the anatomy, as means over `pool`^3 voxels. From its lowest level on everything
    is done for each code: the code joins the lowest level and the voxelwise head, where no normalisation takes it away
    again (``"concat"``), or scales and shifts each decoder level's channels (``"film"``: :math:`\gamma \odot x + \beta`
    from a perceptron that is the identity at the start), or both. The head sees each voxel's own channels too. Dose is
    :math:`\mathrm{softplus}(4(y + p))/4` of its output y and a first guess p, the channel `prior` but at most 1, the
    target's mean: what open fields give the target above it is what planning takes away. Only the box around the
    voxels where dose counts is seen.

    Source: Ma et al., individualised dose prediction from anatomy and desired DVH; Perez et al., AAAI 2018, for FiLM.

    Parameters
    ----------
    channels : int
        Channels in each voxel.
    bins : int
        Length of a code.
    widths : sequence of int
        Channels of the U-Net's levels, two or more.
    pool : int
        Voxels along each axis that the U-Net sees as one.
    head : int
        Hidden width of the voxelwise perceptron.
    conditioning : {"concat", "film", "both", "none"}
        How codes are used.
    prior : int, optional
        Channel that holds a first guess of dose; None starts from nothing.
    distance : int, optional
        Channel that holds the signed distance to the target d [50 mm]; its edge, :math:`\tanh(d / 4 mm)`, is then given
        as one channel more.
    norm : {"instance", "batch"}
        Kind of normalisation.
    """

    def __init__(
        self,
        channels: int,
        bins: int,
        widths: Sequence[int] = (16, 32, 64),
        pool: int = 2,
        head: int = 64,
        conditioning: Conditioning = "both",
        prior: int | None = None,
        distance: int | None = None,
        norm: Norm = "instance",
    ) -> None:
        super().__init__()
        if len(widths) < 2 or bins < 1 or pool < 1:
            raise InputError(f"a DVH U-Net needs two widths or more, bins and pool >= 1, got {widths}, {bins}, {pool}")
        self.bins, self.pool, self.levels = bins, pool, len(widths)
        self.conditioning, self.prior, self.distance = conditioning, prior, distance
        channels = channels if distance is None else channels + 1
        self.down = nn.ModuleList(
            [ResidualBlock(a, b, norm) for a, b in zip((channels + 1, *widths[:-1]), widths, strict=True)]
        )
        joined = bins if conditioning in ("concat", "both") else 0
        self.join = nn.Sequential(nn.Conv3d(widths[-1] + joined, widths[-1], 1), nn.GELU())
        pairs = list(itertools.pairwise(widths))[::-1]
        self.up = nn.ModuleList([ResidualBlock(fine + coarse, fine, norm) for fine, coarse in pairs])
        films = [fine for fine, _ in pairs] if conditioning in ("film", "both") else []
        self.film = nn.ModuleList([_identity_film(bins, count) for count in films])
        self.local = nn.Linear(channels, head)
        self.around = nn.Linear(widths[0], head)
        self.code = nn.Linear(joined, head) if joined else None
        self.head = nn.Sequential(nn.GELU(), nn.Linear(head, head), nn.GELU(), nn.Linear(head, 1))
        if prior is not None:
            nn.init.zeros_(self.head[-1].weight)
            nn.init.zeros_(self.head[-1].bias)

    def forward(
        self, channels: Tensor, voxels: Tensor, shape: tuple[int, int, int], wanted: Tensor, codes: Tensor
    ) -> Tensor:
        """Return dose (codes, k), > 0, in the units trained on.

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
        codes : tensor of shape (codes, bins)
            DVH codes.
        """
        if codes.ndim != 2 or codes.shape[1] != self.bins:
            raise InputError(f"DVH codes have shape {tuple(codes.shape)}, wanted (codes, {self.bins})")
        if self.distance is not None:
            channels = torch.cat([channels, torch.tanh(_EDGE * channels[self.distance : self.distance + 1])])
        x, flat = coarse_volume(channels, *_boxed(voxels, shape), self.pool, self.levels)
        skips = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else functional.max_pool3d(x, 2))
            skips.append(x)
        x = self._joined(x.expand(codes.shape[0], -1, -1, -1, -1), codes)
        for k, (block, skip) in enumerate(zip(self.up, skips[-2::-1], strict=True)):
            grown = functional.interpolate(x, size=skip.shape[2:], mode="trilinear", align_corners=False)
            x = block(torch.cat([grown, skip.expand(codes.shape[0], -1, -1, -1, -1)], dim=1))
            if len(self.film):
                scale, shift = self.film[k](codes)[:, :, None, None, None].chunk(2, dim=1)
                x = x * (1.0 + scale) + shift
        near = self.local(channels[:, wanted].T)[None] + self.around(features_at(x, flat[wanted], self.pool))
        if self.code is not None:
            near = near + self.code(codes)[:, None]
        output = self.head(near)[..., 0].float()
        if self.prior is not None:
            output = output + channels[self.prior, wanted].float().clamp(max=1.0)
        return functional.softplus(4.0 * output) / 4.0

    def _joined(self, x: Tensor, codes: Tensor) -> Tensor:
        if self.code is None:
            return self.join(x)
        return self.join(torch.cat([x, codes[:, :, None, None, None].expand(-1, -1, *x.shape[2:]).to(x.dtype)], dim=1))


def _boxed(voxels: Tensor, shape: tuple[int, int, int]) -> tuple[Tensor, tuple[int, int, int]]:
    """Return flat indices of voxels in the smallest box that holds them all, and the box's shape."""
    _, ny, nx = shape
    cells = torch.stack([voxels // (ny * nx), voxels // nx % ny, voxels % nx])
    first = cells.amin(dim=1, keepdim=True)
    nz, ny, nx = (cells.amax(dim=1) - first[:, 0] + 1).tolist()
    z, y, x = cells - first
    return (z * ny + y) * nx + x, (nz, ny, nx)


def _identity_film(bins: int, count: int) -> nn.Sequential:
    last = nn.Linear(64, 2 * count)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(bins, 64), nn.GELU(), last)
