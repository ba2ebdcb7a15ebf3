"""Dose-volume histograms that networks are steered by: differentiable curves, codes, and changes that are asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from radplan.errors import InputError, UnknownNameError

Tensor = Any

LEVELS = 32
"""Number of dose levels of a curve in a code; level 0, where every curve is 1, is left out."""

HIGHEST = 1.1
"""Highest dose level of a code, in units of the mean dose of the target."""


def dvh_levels(count: int = LEVELS, highest: float = HIGHEST) -> npt.NDArray[np.float64]:
    """Return equal dose levels (count,) above 0, in units of the mean dose of the target.

    >>> dvh_levels(2, 1.0).tolist()
    [0.5, 1.0]
    """
    return np.asarray(np.linspace(0.0, highest, count + 1)[1:])


class DvhLayer(torch.nn.Module):  # type: ignore[misc]
    r"""Volume fractions above dose levels, differentiable: :math:`V(l) = \sum_i w_i\, \sigma((d_i - l)/s)`.

    w are a structure's shares of its volume in the voxels, which sum to 1, and s is the softness. With s against 0 it
    is the cumulative DVH.

    Source: Ma et al. (DVH-conditioned U-Net) for the levels; Nguyen et al., Med. Phys. 47 (2020) 837 for the sigmoid.

    Parameters
    ----------
    parts : tensor of shape (structures, voxels)
        Part of each voxel that belongs to each structure, 0 to 1. A structure without voxels has a curve of 0.
    levels : sequence of float
        Dose levels, in the unit of dose.
    softness : float
        s, in the unit of dose, > 0.

    Raises
    ------
    InputError
        When the softness is not > 0 or the shapes do not fit.
    """

    def __init__(
        self, parts: Tensor, levels: Sequence[float] | npt.NDArray[np.float64], softness: float = 0.01
    ) -> None:
        super().__init__()
        if not softness > 0:
            raise InputError(f"softness must be > 0, got {softness}")
        if parts.ndim != 2:
            raise InputError(f"parts must have shape (structures, voxels), got {tuple(parts.shape)}")
        total = parts.sum(dim=1, keepdim=True)
        self.register_buffer("weights", parts / total.clamp(min=1e-12))
        self.register_buffer("levels", torch.as_tensor(np.asarray(levels), dtype=parts.dtype, device=parts.device))
        self.softness = softness

    def forward(self, dose: Tensor) -> Tensor:
        """Return curves (structures, levels), or (batch, structures, levels), of dose (voxels,) or (batch, voxels)."""
        if dose.shape[-1] != self.weights.shape[1]:
            raise InputError(f"dose has {dose.shape[-1]} voxels, the structures' parts {self.weights.shape[1]}")
        above = torch.sigmoid((dose[..., None, :] - self.levels[:, None]) / self.softness)
        return torch.einsum("...lv,sv->...sl", above, self.weights)


def dvh_curve(dose: npt.ArrayLike, weights: npt.ArrayLike, levels: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the exact volume fractions (levels,) at or above dose levels, for weights that sum to 1.

    >>> dvh_curve([1.0, 3.0], [0.25, 0.75], [0.5, 2.0, 4.0]).tolist()
    [1.0, 0.75, 0.0]
    """
    doses, shares = np.asarray(dose, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    order = np.argsort(doses)
    below = np.concatenate([[0.0], np.cumsum(shares[order])])
    return np.asarray(below[-1] - below[np.searchsorted(doses[order], np.asarray(levels), side="left")])


@dataclass(frozen=True)
class Wish:
    """A change of a structure's DVH that is asked for, such as ``rectum:mean=-20%``.

    Parameters
    ----------
    structure : str
        Whose DVH.
    change : float
        Relative change of its mean dose, above -1.
    """

    structure: str
    change: float

    @classmethod
    def parse(cls, text: str) -> Wish:
        """Return the wish that a text such as ``"rectum:mean=-20%"`` says.

        Raises
        ------
        InputError
            When it says no such thing.

        >>> Wish.parse("rectum:mean=-20%")
        Wish(structure='rectum', change=-0.2)
        """
        match = re.fullmatch(r"\s*([^:]+?)\s*:\s*mean\s*=\s*([+-]?\d+(?:\.\d+)?)\s*%\s*", text)
        if match is None:
            raise InputError(f"a wish reads STRUCTURE:mean=-20%, got {text!r}")
        change = float(match[2]) / 100
        if not change > -1:
            raise InputError(f"a mean dose cannot fall by 100 % or more, got {text!r}")
        return cls(match[1], change)

    def applied(
        self, curves: Mapping[str, npt.NDArray[np.float64]], levels: npt.ArrayLike
    ) -> dict[str, npt.NDArray[np.float64]]:
        r"""Return DVHs (levels,) by structure, that of the wish moved: :math:`V'(l) = V(l/(1+c))`.

        All doses of the structure are scaled by 1 + c, so that its mean changes by c and its curve stays a DVH.

        Raises
        ------
        UnknownNameError
            When there is no such structure.
        """
        if self.structure not in curves:
            raise UnknownNameError("structure", self.structure, curves)
        places = np.concatenate([[0.0], np.asarray(levels, dtype=np.float64)])
        curve = np.concatenate([[1.0], curves[self.structure]])
        moved = np.interp(places[1:] / (1.0 + self.change), places, curve, right=0.0)
        return {**curves, self.structure: np.asarray(moved)}
