"""A U-Net from anatomy and wished DVHs to dose, after Ma et al., steered at its bottom and head or at every level."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from radplan.ai.nets.blocks import Norm, normalisation
from radplan.errors import InputError

Tensor = Any
Conditioning = Literal["concat", "film", "both", "none"]


class DvhUNet(nn.Module):  # type: ignore[misc]
    r"""Dose (batch, 1, z, y, x) of anatomy (batch, channels, z, y, x) and a DVH code (batch, bins).

    Levels halve the volume, at most `levels` times. Each level has two layers of convolution 3^3, normalisation and
    ReLU, with dropout that grows with depth. The code joins the channels of the lowest level and of the voxelwise
    head, where no normalisation takes it away again (``"concat"``), or scales and shifts each decoder level's channels
    (``"film"``: :math:`\gamma \odot x + \beta` from a perceptron that is the identity at the start), or both.

    Source: Ma et al., individualised dose prediction from anatomy and desired DVH; Perez et al., AAAI 2018, for FiLM.

    Parameters
    ----------
    channels : int
        Of the anatomy.
    bins : int
        Length of the code.
    width : int
        Channels of the first level; each level doubles them, up to `most`.
    conditioning : {"concat", "film", "both", "none"}
        How the code is used.
    levels : int
        Largest number of levels.
    most : int
        Largest number of channels.
    norm : {"instance", "batch"}
        Kind of normalisation; batches of one to three want ``"instance"``.
    dropout : float
        Of the lowest level; others have their share by depth.
    """

    def __init__(
        self,
        channels: int,
        bins: int,
        width: int = 8,
        conditioning: Conditioning = "both",
        levels: int = 4,
        most: int = 128,
        norm: Norm = "instance",
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if levels < 1 or width < 1 or bins < 1:
            raise InputError(f"levels, width and bins must be >= 1, got {levels}, {width} and {bins}")
        self.bins, self.conditioning = bins, conditioning
        widths = [min(width * 2**level, most) for level in range(levels)]
        ins = [channels, *widths[:-1]]
        self.down = nn.ModuleList(
            [
                _two_layers(a, b, norm, dropout * k / max(levels - 1, 1))
                for k, (a, b) in enumerate(zip(ins, widths, strict=True))
            ]
        )
        extra = bins if conditioning in ("concat", "both") else 0
        self.join = _two_layers(widths[-1] + extra, widths[-1], norm, dropout, kernel=1)
        self.up = nn.ModuleList(
            [_two_layers(widths[k] + widths[k + 1], widths[k], norm, 0.0) for k in range(levels - 2, -1, -1)]
        )
        films = widths[-2::-1] if conditioning in ("film", "both") else []
        self.film = nn.ModuleList([_identity_film(bins, count) for count in films])
        self.head = nn.Sequential(nn.Conv3d(widths[0] + extra, 16, 1), nn.GELU(), nn.Conv3d(16, 1, 1))

    def forward(self, anatomy: Tensor, code: Tensor) -> Tensor:
        """Return dose (batch, 1, z, y, x), > 0."""
        if code.shape != (anatomy.shape[0], self.bins):
            raise InputError(f"the DVH code has shape {tuple(code.shape)}, wanted {(anatomy.shape[0], self.bins)}")
        x, skips = anatomy, []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else functional.max_pool3d(x, 2, ceil_mode=True))
            skips.append(x)
        x = self.join(self._with_code(x, code))
        for k, (block, skip) in enumerate(zip(self.up, skips[-2::-1], strict=True)):
            grown = functional.interpolate(x, size=skip.shape[2:], mode="trilinear", align_corners=False)
            x = block(torch.cat([grown, skip], dim=1))
            if len(self.film):
                scale, shift = self.film[k](code)[:, :, None, None, None].chunk(2, dim=1)
                x = x * (1.0 + scale) + shift
        return functional.softplus(4.0 * self.head(self._with_code(x, code))) / 4.0

    def _with_code(self, x: Tensor, code: Tensor) -> Tensor:
        if self.conditioning not in ("concat", "both"):
            return x
        return torch.cat([x, code[:, :, None, None, None].expand(-1, -1, *x.shape[2:])], dim=1)


def _two_layers(channels: int, width: int, norm: Norm, dropout: float, kernel: int = 3) -> nn.Sequential:
    layers: list[nn.Module] = []
    for count in (channels, width):
        layers.append(nn.Conv3d(count, width, kernel, padding=kernel // 2, bias=False))
        # Why: a volume of one voxel has no spread of its own to be normalised by.
        layers += [normalisation(norm, width)] if kernel > 1 else []
        layers.append(nn.ReLU())
        layers += [nn.Dropout3d(dropout)] if dropout > 0 else []
    return nn.Sequential(*layers)


def _identity_film(bins: int, count: int) -> nn.Sequential:
    last = nn.Linear(64, 2 * count)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(bins, 128), nn.GELU(), nn.Linear(128, 64), nn.GELU(), last)
