"""What the head of a linac adds to the photons from its target: head scatter, and what jaws throw back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import erf, prod, sqrt

from radplan.errors import InputError

REFERENCE_SIDE = 100.0
"""Side of the square field in the isocentre plane at which both effects are one [mm]."""

WIDEST = 400.0
"""Side of the largest field, beyond which a jaw hides nothing more of the beam [mm]."""


@dataclass(frozen=True)
class Head:
    r"""Head scatter and monitor back-scatter of a linac, both one on the axis of the 10x10; off unless given.

    Scatter from the flattening filter comes from a second, broad source: in the isocentre plane a Gaussian blur of
    what the collimators let through,
    :math:`\Phi' = (1 - f) \Phi + f \, (G_\sigma * \Phi) / [\mathrm{erf}(50\,mm / \sqrt2 \sigma_x) \,
    \mathrm{erf}(50\,mm / \sqrt2 \sigma_y)]`. The pair of collimators that stands nearer to the source blurs it more.

    Jaws throw radiation back into the monitor chamber, which then ends the beam earlier. With the open shares u of the
    upper (Y) and l of the lower (X) jaws, of 40 cm, the output is :math:`(1 + b_{10 \times 10}) / (1 + b)` with
    :math:`b = b_Y (1 - u) + b_X u (1 - l)`.

    Parameters
    ----------
    scatter : float
        f: share of head scatter in the fluence on the axis of the 10x10, in [0, 1).
    scatter_sigma : float or (float, float)
        Standard deviation of the second source, seen through the collimators in the isocentre plane [mm], > 0; of all,
        or along x and along y of the collimator.
    back_scatter_upper, back_scatter_lower : float
        b_Y and b_X: what closed upper and lower jaws add to the monitor signal, in [0, 1).

    Raises
    ------
    InputError
        When a value is out of its range.

    Source: Ahnesjö, Knöös, Montelius, Med. Phys. 19 (1992) 295 and 21 (1994) 1227; Jiang, Boyer, Ma, Med. Phys. 28
    (2001) 55; report of AAPM task group 74, Med. Phys. 36 (2009) 5261.

    >>> round(Head(scatter=0.08, scatter_sigma=22.0).visible(100.0), 3)
    0.954
    """

    scatter: float = 0.0
    scatter_sigma: float | tuple[float, float] = 25.0
    back_scatter_upper: float = 0.0
    back_scatter_lower: float = 0.0

    def __post_init__(self) -> None:
        for name in ("scatter", "back_scatter_upper", "back_scatter_lower"):
            if not 0 <= self.__dict__[name] < 1:
                raise InputError(f"{name} of a linac's head must lie in [0, 1), got {self.__dict__[name]}")
        if isinstance(self.scatter_sigma, Sequence):
            object.__setattr__(self, "scatter_sigma", tuple(self.scatter_sigma))
        if not (len(self.sigmas) == 2 and all(0 < sigma < float("inf") for sigma in self.sigmas)):
            raise InputError(f"scatter_sigma of a linac's head must be > 0 mm, one or two, got {self.scatter_sigma}")

    @property
    def sigmas(self) -> tuple[float, ...]:
        """Standard deviations of the second source along x and along y of the collimator [mm]."""
        return self.scatter_sigma if isinstance(self.scatter_sigma, tuple) else (self.scatter_sigma,) * 2

    def visible(self, side: float) -> float:
        """Return the share of the second source that the axis sees through a square of a side [mm]."""
        return prod(erf(side / (2.0 * sqrt(2.0) * sigma)) for sigma in self.sigmas)
