r"""Head scatter and monitor back-scatter of apertures, smooth in leaves and jaws, with pullbacks by hand.

A Gaussian blur is one that is :math:`\sqrt2` times narrower applied twice; between the two it is smooth enough for a
few nodes. So the blur of a whole map is a product with two thin matrices from each side, and its own transpose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from radplan.arrays import Array, Target, namespace
from radplan.machines.head import REFERENCE_SIDE, WIDEST, Head

Floats = npt.NDArray[np.float64]

_NODE_SPACING = 0.75
"""Distance of nodes between the two blurs, in their standard deviations: leaves out 5e-8 of the blur."""

_NODE_REACH = 5.0
"""How far nodes go beyond the map, in standard deviations of one of the two blurs."""

_JAW_SOFTNESS = 1.0
"""Length over which a jaw leaves the largest field [mm]."""


@dataclass(frozen=True, eq=False)
class HeadScatter:
    r"""The map from fluence to fluence with head scatter, :math:`(1 - f) \Phi + f \, G_\sigma * \Phi / e`.

    Beyond the map there is no fluence. Make it with `HeadScatter.of`.

    Parameters
    ----------
    kept : float
        What stays of the fluence from the target, 1 - f.
    x, y : array of shape (p, r), (q, s)
        Thin factors of the blur: x times its transpose blurs along x; f / e is inside those of x.

    >>> from radplan.arrays import target
    >>> made = HeadScatter.of(Head(0.08, 22.0), (201, 201), 1.0, target("numpy"))
    >>> field = (np.abs(np.arange(-100.0, 101.0)) <= 50.0) * np.ones((201, 1))
    >>> scattered = made.apply(field * field.T)
    >>> round(float(scattered[100, 100]), 3), round(float(scattered[100, 160]), 3)
    (1.0, 0.027)
    """

    kept: float
    x: Array
    y: Array

    @classmethod
    def of(cls, head: Head, shape: tuple[int, int], pitch: float, place: Target) -> HeadScatter:
        """Return the map on square pixels of a pitch [mm]."""
        strength = math.sqrt(head.scatter / head.visible(REFERENCE_SIDE))
        x, y = (_half_blur(count, pitch, head.scatter_sigma) for count in shape)
        return cls(1.0 - head.scatter, place.asarray(strength * x, "float64"), place.asarray(y, "float64"))

    def apply(self, fluence: Array) -> Array:
        """Return the fluence ``(p, q)`` with head scatter of one without."""
        xp = namespace(fluence)
        x, y = xp.permute_dims(self.x, (1, 0)), xp.permute_dims(self.y, (1, 0))
        between = xp.matmul(xp.matmul(x, fluence), self.y)
        return self.kept * fluence + xp.matmul(xp.matmul(self.x, between), y)

    def adjoint(self, cotangent: Array) -> Array:
        """Return the transpose's image ``(p, q)``: the map is its own transpose."""
        return self.apply(cotangent)


def _half_blur(count: int, pitch: float, sigma: float) -> Floats:
    """Return the matrix (count, nodes) whose product with its transpose blurs averages of pixels."""
    # Why: that pixels hold averages is itself a blur, of variance pitch^2 / 12 on the way in and again on the way out.
    half = math.sqrt((sigma**2 + pitch**2 / 6.0) / 2.0)
    spacing = _NODE_SPACING * half
    reach = 0.5 * (count - 1) * pitch + _NODE_REACH * half
    nodes = np.arange(-math.ceil(reach / spacing), math.ceil(reach / spacing) + 1) * spacing
    centres = (np.arange(count) - 0.5 * (count - 1)) * pitch
    distance = (centres[:, None] - nodes) / half
    return np.asarray(np.exp(-0.5 * distance**2) * math.sqrt(pitch * spacing / (2.0 * math.pi)) / half)


@dataclass(frozen=True)
class MonitorBackScatter:
    r"""Output per monitor unit, :math:`(1 + b_{10 \times 10}) / (1 + b)`, as a function of the jaws.

    :math:`b = b_Y (1 - u) + b_X u (1 - l)` with the open shares u, l of the upper and the lower jaws; jaws that a
    linac has not count as at the 10x10.

    Parameters
    ----------
    upper, lower : float
        b_Y and b_X.
    upper_along : bool
        Whether the upper jaws move along the leaves.
    along, across : bool
        Whether there are jaws along and across the motion of the leaves.

    >>> chamber = MonitorBackScatter(0.01, 0.0, False, True, True)
    >>> jaws = np.asarray([[-50.0, 50.0]]), np.asarray([[-200.0, 200.0]])
    >>> round(float(chamber.output(*jaws)[0]), 4)  # upper jaws at 40 instead of 10 cm
    1.0075
    """

    upper: float
    lower: float
    upper_along: bool
    along: bool
    across: bool

    def output(self, along: Array, across: Array) -> Array:
        """Return the output ``(s,)`` for jaws ``(s, 2)`` along and across the motion of the leaves [mm]."""
        upper, lower = self._ordered(_open_share(along, self.along)[0], _open_share(across, self.across)[0])
        return self._most() / (1.0 + self.upper * (1.0 - upper) + self.lower * upper * (1.0 - lower))

    def pullback(self, cotangent: Array, along: Array, across: Array) -> tuple[Array, Array]:
        """Return the cotangents ``(s, 2)`` of the jaws along and across for one ``(s,)`` of the output."""
        shares = _open_share(along, self.along), _open_share(across, self.across)
        upper, lower = self._ordered(shares[0][0], shares[1][0])
        signal = 1.0 + self.upper * (1.0 - upper) + self.lower * upper * (1.0 - lower)
        by_signal = -cotangent * self._most() / signal**2
        by_upper = by_signal * (self.lower * (1.0 - lower) - self.upper)
        by_lower = -by_signal * self.lower * upper
        to_along, to_across = self._ordered(by_upper, by_lower)
        return to_along[:, None] * shares[0][1], to_across[:, None] * shares[1][1]

    def _most(self) -> float:
        share = REFERENCE_SIDE / WIDEST
        return 1.0 + self.upper * (1.0 - share) + self.lower * share * (1.0 - share)

    def _ordered(self, first: Array, second: Array) -> tuple[Array, Array]:
        """Return a pair (along, across) as (upper, lower), and back."""
        return (first, second) if self.upper_along else (second, first)


def _open_share(jaws: Array, there: bool) -> tuple[Array, Array]:
    """Return the share (s,) of the largest field between jaws (s, 2), and its slopes (s, 2)."""
    xp = namespace(jaws)
    if not there:
        return 0.0 * jaws[:, 0] + REFERENCE_SIDE / WIDEST, xp.zeros_like(jaws)
    low, high = jaws + 0.5 * WIDEST, jaws - 0.5 * WIDEST
    roots = tuple(xp.sqrt(edge * edge + _JAW_SOFTNESS**2) for edge in (low, high))
    inside = 0.5 * (low - high + roots[0] - roots[1])
    slope = 0.5 * (low / roots[0] - high / roots[1]) / WIDEST
    return (inside[:, 1] - inside[:, 0]) / WIDEST, xp.stack([-slope[:, 0], slope[:, 1]], axis=1)
