"""How dose of apertures is calculated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np

from radplan.engines.aperture.depths import Depths
from radplan.errors import InputError

FREE = ("leaves", "jaws", "mu", "collimator")
"""What of a plan may be changed."""


@dataclass(frozen=True)
class ApertureOptions:
    """How dose of apertures is calculated.

    Parameters
    ----------
    pixel : float
        Largest pixel of the maps [mm]; never larger than the standard deviation of the source.
    lateral_cutoff : float
        Radius of the kernel in the isocentre plane [mm].
    margin : float
        How far beyond the plan's openings fluence is calculated and jaws may go [mm].
    jaw_transmission : float or (float, float), optional
        Fluence behind jaws over open fluence, of all or of x and y jaws, in [0, 1); the machine's own when left out,
        0.004 where it states none.
    softness : float
        Length over which a jaw takes over from a leaf [mm], > 0.
    gantry_steps : int
        Positions that a segment in which gantry, couch, collimator or isocentre move is calculated at, >= 1.
    head_scatter, back_scatter, tongue_and_groove : bool
        Whether the machine's head scatter and monitor back-scatter, and the collimator's interlocking, are counted.
    depths : "fan" or "exact"
        Radiological depths read between the rays of a fan, about as far apart as voxels of the CT, or one exact ray
        for each voxel, which takes five times as long and is no nearer to a smooth outline.
    ray_spacing : float, optional
        Distance of the rays of a fan in the isocentre plane, and of the planes across them [mm]; about a voxel of the
        CT, 1 to 3 mm, when left out. Rays 3 mm apart take a ninth of the time of 1 mm.
    cache_depths : bool
        Whether depths are kept, 2 bytes for each voxel and pose, or calculated whenever they are needed.
    free : tuple of str
        What may be changed, of ``"leaves"``, ``"jaws"``, ``"mu"`` and ``"collimator"``; the rest stays as it is.
        The last adds a variable to every field: how far its collimator is turned from the plan's angles.
    density_scaling : bool, optional
        Whether the kernel is wider where density is low, see `radplan.engines.photon.terms.widened_weights`. Left out,
        it is on where the patient has a lung contoured and the machine's kernel tells scatter from primary.

    Raises
    ------
    InputError
        When an option is out of its range.

    >>> ApertureOptions().pixel
    1.0
    """

    pixel: float = 1.0
    lateral_cutoff: float = 250.0
    margin: float = 20.0
    jaw_transmission: float | tuple[float, float] | None = None
    softness: float = 0.2
    gantry_steps: int = 1
    head_scatter: bool = True
    back_scatter: bool = True
    tongue_and_groove: bool = True
    density_scaling: bool | None = None
    depths: Depths = "fan"
    ray_spacing: float | None = None
    cache_depths: bool = True
    free: tuple[str, ...] = ("leaves", "jaws", "mu")

    def __post_init__(self) -> None:
        for name in ("pixel", "margin", "softness", "lateral_cutoff"):
            if not (_is_number(self.__dict__[name]) and self.__dict__[name] > 0):
                raise InputError(f"{name} must be > 0 and finite, got {self.__dict__[name]!r}")
        if self.ray_spacing is not None and not (_is_number(self.ray_spacing) and self.ray_spacing > 0):
            raise InputError(f"ray_spacing must be > 0 and finite, got {self.ray_spacing!r}")
        steps = self.gantry_steps
        if not isinstance(steps, int | np.integer) or isinstance(steps, bool) or steps < 1:
            raise InputError(f"gantry_steps must be a whole number >= 1, got {steps!r}")
        if not isinstance(self.density_scaling, bool | np.bool_ | None):
            raise InputError(f"density_scaling must be True, False or None, got {self.density_scaling!r}")
        if self.jaw_transmission is not None:
            self._check_jaws(self.jaw_transmission)
        if self.depths not in ("fan", "exact"):
            raise InputError(f"depths must be 'fan' or 'exact', got {self.depths!r}")
        unknown = [name for name in self.free if name not in FREE]
        if unknown or isinstance(self.free, str):
            raise InputError(f"free must be a tuple of some of {FREE}, got {self.free!r}")

    def _check_jaws(self, given: float | tuple[float, float]) -> None:
        each = tuple(given) if isinstance(given, Sequence) else (given, given)
        if len(each) != 2 or not all(_is_number(one) and 0 <= one < 1 for one in each):
            raise InputError(f"jaw_transmission must lie in [0, 1), one number or two, got {given!r}")
        if isinstance(given, Sequence):
            object.__setattr__(self, "jaw_transmission", (float(each[0]), float(each[1])))


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
