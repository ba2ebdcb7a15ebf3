"""A network from what control points see to leaves, jaws and monitor units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from radplan.ai.nets.blocks import Norm
from radplan.ai.nets.fluence_net import seen_around
from radplan.ai.nets.resunet import ResUNet

Tensor = Any


class ApertureNet(nn.Module):  # type: ignore[misc]
    """Maps (channels, control points, v, u) to openings of each row, monitor units of each control point, and jaws.

    A U-Net sees the maps round the patient without an end; a perceptron of each row sees the features and maps of all
    its pixels. Before it is trained the network says: open as the target looks, alike from all sides.

    Source: the network that the paper on PyDoseRT trains through its engine, in a small form.

    Parameters
    ----------
    channels : int
        Maps that come in.
    columns : int
        Pixels along u.
    widths : sequence of int
        Of the U-Net's levels.
    hidden : int
        Width of the perceptron.
    norm : {"instance", "batch"}
        Kind of normalisation.
    """

    def __init__(
        self, channels: int, columns: int, widths: Sequence[int], hidden: int, norm: Norm = "instance"
    ) -> None:
        super().__init__()
        self.round = 2 ** (len(widths) + 1)
        self.trunk = ResUNet(channels, widths, norm)
        self.row = nn.Linear((channels + widths[0]) * columns, hidden)
        self.ends, self.units, self.jaws = nn.Linear(hidden, 2), nn.Linear(hidden, 1), nn.Linear(hidden, 4)
        for head in (self.ends, self.units, self.jaws):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return shift and width of the openings, monitor units, and how far jaws move out.

        Returns
        -------
        shift, width : tensor of shape (control points, v)
            Of the opening's middle, -1 to 1 in half widths of the target's, and half width over the target's, > 0.
        units : tensor of shape (control points,)
            Over those that are alike from all sides, > 0.
        jaws : tensor of shape (4,)
            -1 to 1, outwards: x1, x2, y1, y2.
        """
        seen = seen_around(self.trunk, maps, self.round)[0]
        rows = seen.permute(1, 2, 0, 3).flatten(2)
        hidden = functional.gelu(self.row(rows))
        ends = self.ends(hidden).float()
        units, jaws = self.units(hidden.mean(dim=1))[:, 0].float(), self.jaws(hidden.mean(dim=(0, 1))).float()
        even = torch.log(torch.tensor(2.0))
        return (
            torch.tanh(ends[..., 0]),
            functional.softplus(ends[..., 1]) / even,
            functional.softplus(units) / even,
            torch.tanh(jaws),
        )
