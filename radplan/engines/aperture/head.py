r"""Head scatter and monitor back-scatter of apertures, smooth in leaves and jaws, with pullbacks by hand.

A Gaussian blur is one that is :math:`\sqrt2` times narrower applied twice; between the two it is smooth enough for a
few nodes. So the blur of a whole map is a product with two thin matrices from each side, and its own transpose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from radplan.arrays import Array, Device, namespace
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

    Beyond the map there is no fluence. Make it with `HeadScatter.of`, or with `HeadScatter.between` for pixels that are
    not all as wide.

    Parameters
    ----------
    kept : float
        What stays of the fluence from the target, 1 - f.
    onto : (array, array) of shape (r, p), (s, q)
        The first blur, from pixels to nodes along x and along y; f / e is inside that of x.
    back : (array, array) of shape (p, r), (q, s)
        The second blur, from nodes to pixels.

    >>> from radplan.arrays import as_device
    >>> made = HeadScatter.of(Head(0.08, 22.0), (201, 201), 1.0, as_device("numpy"))
    >>> field = (np.abs(np.arange(-100.0, 101.0)) <= 50.0) * np.ones((201, 1))
    >>> scattered = made.apply(field * field.T)
    >>> round(float(scattered[100, 100]), 3), round(float(scattered[100, 160]), 3)
    (1.0, 0.027)
    """

    kept: float
    onto: tuple[Array, Array]
    back: tuple[Array, Array]

    @classmethod
    def of(cls, head: Head, shape: tuple[int, int], pitch: float, place: Device) -> HeadScatter:
        """Return the map on square pixels of a pitch [mm]."""
        x, y = (np.asarray((np.arange(count + 1) - 0.5 * count) * pitch, dtype=np.float64) for count in shape)
        return cls.between(head, x, y, place)

    @classmethod
    def between(cls, head: Head, x: Floats, y: Floats, place: Device) -> HeadScatter:
        """Return the map on pixels between edges ``(p + 1,)`` along x and ``(q + 1,)`` along y [mm]."""
        strength = head.scatter / head.visible(REFERENCE_SIDE)
        (x_onto, x_back), (y_onto, y_back) = map(_half_blurs, (x, y), head.sigmas)
        onto, back = (strength * x_onto, y_onto), (x_back, y_back)
        first, second = (tuple(place.asarray(one, "float64") for one in pair) for pair in (onto, back))
        return cls(1.0 - head.scatter, (first[0], first[1]), (second[0], second[1]))

    def apply(self, fluence: Array) -> Array:
        """Return the fluence ``(p, q)`` with head scatter of one without."""
        return self.kept * fluence + _both_sides(self.back, _both_sides(self.onto, fluence))

    def adjoint(self, cotangent: Array) -> Array:
        """Return the image ``(p, q)`` that the transpose makes of one."""
        xp = namespace(cotangent)
        back, onto = (tuple(xp.permute_dims(one, (1, 0)) for one in pair) for pair in (self.back, self.onto))
        return self.kept * cotangent + _both_sides((onto[0], onto[1]), _both_sides((back[0], back[1]), cotangent))


def _both_sides(factors: tuple[Array, Array], image: Array) -> Array:
    """Return an image with one matrix applied along x and one along y."""
    xp = namespace(image)
    return xp.matmul(xp.matmul(factors[0], image), xp.permute_dims(factors[1], (1, 0)))


def _half_blurs(edges: Floats, sigma: float) -> tuple[Floats, Floats]:
    """Return the matrices (nodes, pixels) and (pixels, nodes) whose product blurs averages of pixels."""
    widths, centres = np.diff(edges), 0.5 * (edges[1:] + edges[:-1])
    # Why: that pixels hold averages is itself a blur, of variance width^2 / 12 on the way in and again on the way out.
    halves = np.sqrt(0.5 * sigma**2 + widths**2 / 12.0)[:, None]
    spacing = _NODE_SPACING * float(halves.min())
    low, high = (end + side * _NODE_REACH * float(halves.max()) for end, side in ((centres[0], -1), (centres[-1], 1)))
    nodes = (
        0.5 * (low + high) + (np.arange(math.ceil((high - low) / spacing) + 1) - 0.5 * (high - low) / spacing) * spacing
    )
    blur = np.exp(-0.5 * ((centres[:, None] - nodes) / halves) ** 2) * math.sqrt(spacing / (2.0 * math.pi)) / halves
    return np.ascontiguousarray((blur * widths[:, None]).T), blur


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
