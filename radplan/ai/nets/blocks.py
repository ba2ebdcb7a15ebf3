"""Blocks of convolutional networks on volumes."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

Tensor = Any
Norm = Literal["instance", "batch"]


def normalisation(kind: Norm, channels: int) -> nn.Module:
    """Return instance or batch normalisation with a learned scale and shift."""
    if kind == "batch":
        return nn.BatchNorm3d(channels)
    return InstanceNorm(channels, affine=True)


class InstanceNorm(nn.InstanceNorm3d):  # type: ignore[misc]
    """Instance normalisation that keeps a volume of a batch of one in the order of memory it comes in.

    Of one volume, instance and batch statistics are the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised volumes, of the shape of x."""
        if x.shape[0] == 1:
            return functional.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
        return super().forward(x)


class ResidualBlock(nn.Module):  # type: ignore[misc]
    """Two 3 x 3 x 3 convolutions beside a shortcut: conv-norm-ReLU-conv-norm + shortcut, then ReLU.

    The shortcut is a 1 x 1 x 1 convolution with normalisation where the number of channels changes.

    Source: He et al., CVPR 2016; Arberet et al., arXiv 2603.06338 for its use on dose.

    Parameters
    ----------
    channels, width : int
        Channels that come in and go out.
    norm : {"instance", "batch"}
        Kind of normalisation.
    """

    def __init__(self, channels: int, width: int, norm: Norm = "instance") -> None:
        super().__init__()
        self.first = nn.Conv3d(channels, width, 3, padding=1, bias=False)
        self.first_norm = normalisation(norm, width)
        self.second = nn.Conv3d(width, width, 3, padding=1, bias=False)
        self.second_norm = normalisation(norm, width)
        self.shortcut: nn.Module = nn.Identity()
        if channels != width:
            self.shortcut = nn.Sequential(nn.Conv3d(channels, width, 1, bias=False), normalisation(norm, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(batch, width, z, y, x)`` of ``(batch, channels, z, y, x)``."""
        h = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(self.second_norm(self.second(h)) + self.shortcut(x))
