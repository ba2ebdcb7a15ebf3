"""How far from its axis a spot gives dose: radii that hold a share of it, exact ones or those that matRad finds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from radplan.errors import InputError
from radplan.machines.particle import EnergyLayer

Floats = npt.NDArray[np.float64]

Lateral = Literal["single", "double", "elliptic"]

WIDTHS: Mapping[str, tuple[str, ...]] = {
    "single": ("sigma",),
    "double": ("sigma1", "sigma2", "weight"),
    "elliptic": ("sigma_x", "sigma_y"),
}
"""Tables of an energy layer that each lateral model reads."""

_DIRECTIONS = 32
"""Directions over which the cut-off of an elliptic spot is averaged."""

_STEPS = 18
"""Depths in front of and behind the peak at which matRad determines a radius."""

_EDGES = np.concatenate([[0.0], np.logspace(-1.0, 3.0, 120)])
"""Radii of matRad's shells [mm]."""


def share_outside(squared: Floats, lateral: Lateral, widths: Sequence[Floats], variance: float) -> Floats:
    r"""Return the share of a spot's dose farther from its axis than a radius.

    Parameters
    ----------
    squared : array of shape (n,)
        Squares of the radii [mm^2].
    lateral : "single", "double" or "elliptic"
        The lateral model, and its tables `widths` [mm] (and share of the halo), each of shape (n,).
    variance : float
        Variance of the spot in front of the patient [mm^2].

    >>> share = share_outside(np.asarray([2 * 25.0]), "single", [np.asarray([3.0])], 16.0)  # S = 9 + 16
    >>> share.round(6).tolist()  # exp(-1)
    [0.367879]
    """
    first = widths[0] ** 2 + variance
    if lateral == "single":
        return np.asarray(np.exp(-0.5 * squared / first))
    second = widths[1] ** 2 + variance
    if lateral == "double":
        core, halo = np.exp(-0.5 * squared / first), np.exp(-0.5 * squared / second)
        return np.asarray((1.0 - widths[2]) * core + widths[2] * halo)
    turn = (np.arange(_DIRECTIONS) + 0.5)[:, None] * (math.pi / 2 / _DIRECTIONS)
    steep = np.cos(turn) ** 2 / first + np.sin(turn) ** 2 / second
    return np.asarray(np.mean(np.exp(-0.5 * squared * steep) / steep, axis=0) / np.sqrt(first * second))


def squared_cutoff(outside: float, lateral: Lateral, widths: Sequence[Floats], variance: float) -> Floats:
    """Return the squares [mm^2] of the radii beyond which a share of a spot's dose lies, shape (n,).

    >>> squared_cutoff(np.exp(-1.0), "single", [np.asarray([3.0])], 16.0).round(6).tolist()
    [50.0]
    """
    low = np.zeros_like(widths[0])
    high = -2.0 * math.log(outside) * (np.max(np.stack([w**2 for w in widths[:2]]), axis=0) + variance)
    if lateral == "single":
        return np.asarray(high)
    for _ in range(40):
        middle = 0.5 * (low + high)
        beyond = share_outside(middle, lateral, widths, variance) > outside
        low, high = np.where(beyond, middle, low), np.where(beyond, high, middle)
    return np.asarray(high)


@dataclass(frozen=True)
class Cutoff:
    r"""A rule for the radius beyond which a spot's dose is left out, and the rest made up to the whole.

    - ``"exact"``: at every depth of the tables the very radius that holds the share.
    - ``"matrad"``: at 35 depths, equally far apart in integrated dose in front of and behind the peak, the middle of
      the first of 120 shells (radii 0.1 to 1000 mm, each 8 % larger) with which the sum over shells
      :math:`2 \pi r L(r) \Delta r` reaches the share, its square linear in between; on top of that no spot of a ray
      reaches farther, measured in the isocentre plane, than the ray's highest energy ever does.

    Parameters
    ----------
    share : float
        Share of a spot's dose that is kept, in (0, 1).
    rule : "exact" or "matrad"
        The rule.

    Raises
    ------
    InputError
        When the share or the rule is none.

    Notes
    -----
    Source: matRad 3.2.2, ``+DoseEngines/matRad_ParticlePencilBeamEngineAbstract.m``.

    >>> Cutoff(0.99).caps_rays, Cutoff(0.99, "matrad").caps_rays
    (False, True)
    """

    share: float = 0.995
    rule: Literal["exact", "matrad"] = "exact"

    def __post_init__(self) -> None:
        if not 0.0 < self.share < 1.0:
            raise InputError(f"lateral_cutoff must be a share of dose in (0, 1), got {self.share}")
        if self.rule not in ("exact", "matrad"):
            raise InputError(f"cutoff_rule must be 'exact' or 'matrad', got {self.rule!r}")

    @property
    def caps_rays(self) -> bool:
        """Whether the highest energy of a ray limits the reach of all its spots."""
        return self.rule == "matrad"

    def squared(self, layer: EnergyLayer, lateral: Lateral, variance: float) -> Floats:
        """Return the squared radii [mm^2] at the depths of a layer, for a variance in front of the patient [mm^2].

        Raises
        ------
        InputError
            When matRad's shells hold less than the share: their sum ends near 0.9995 of a Gaussian.
        """
        widths = [layer.__dict__[name] for name in WIDTHS[lateral]]
        if self.rule == "exact":
            return squared_cutoff(1.0 - self.share, lateral, widths, variance)
        depths = _matrad_depths(layer)
        there = [np.interp(depths, layer.depth, width) for width in widths]
        middle, thick = 0.5 * (_EDGES[1:] + _EDGES[:-1]), np.diff(_EDGES)
        shells = _profile(middle, lateral, there, variance) * 2.0 * math.pi * middle * thick
        held = np.cumsum(shells, axis=1)
        most = float(held[:, -1].min())
        if most < self.share:
            raise InputError(
                f"lateral_cutoff={self.share:g} with cutoff_rule='matrad': matRad's shells hold at most {most:.6f} "
                "of a spot's dose; give a smaller share, or cutoff_rule='exact'"
            )
        radius = middle[np.argmax(held >= self.share, axis=1)]
        return np.asarray(np.interp(layer.depth, depths, radius**2))


def _matrad_depths(layer: EnergyLayer) -> Floats:
    """Return depths equally far apart in integrated dose, half of them in front of the peak and half behind."""
    between = 0.5 * (layer.dose[1:] + layer.dose[:-1]) * np.diff(layer.depth)
    integral = np.concatenate([[0.0], np.cumsum(between)])
    top = int(np.argmax(layer.dose))
    front, tail = integral[top] / _STEPS, (integral[-1] - integral[top]) / _STEPS
    after = integral[min(top + 1, integral.size - 1)]
    behind = np.arange(after, integral[-1], tail) if tail > 0.0 else np.zeros(0)
    wanted = np.concatenate([np.arange(_STEPS + 1) * front, behind, integral[[top, -1]]])
    levels, first = np.unique(integral, return_index=True)
    return np.asarray(np.interp(np.unique(wanted), levels, layer.depth[first]))


def _profile(radii: Floats, lateral: Lateral, widths: Sequence[Floats], variance: float) -> Floats:
    """Return the lateral profile [1/mm^2] at radii ``(r,)``, averaged over directions, for widths ``(d,)``: (d, r)."""
    first = widths[0][:, None] ** 2 + variance
    if lateral == "single":
        return np.asarray(np.exp(-(radii**2) / (2.0 * first)) / (2.0 * math.pi * first))
    second = widths[1][:, None] ** 2 + variance
    if lateral == "double":
        core, halo = (np.exp(-(radii**2) / (2.0 * s)) / (2.0 * math.pi * s) for s in (first, second))
        return np.asarray((1.0 - widths[2][:, None]) * core + widths[2][:, None] * halo)
    turn = (np.arange(_DIRECTIONS) + 0.5) * (math.pi / 2 / _DIRECTIONS)
    steep = np.cos(turn) ** 2 / first + np.sin(turn) ** 2 / second
    around = np.exp(-0.5 * radii[None, :, None] ** 2 * steep[:, None, :]).mean(axis=2)
    return np.asarray(around / (2.0 * math.pi * np.sqrt(first * second)))
