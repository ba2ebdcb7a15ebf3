"""Curves and output factors that a clinic measures in its water tank, as commissioning takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from radplan.errors import InputError

Floats = npt.NDArray[np.float64]
Curve = Literal["depth dose", "inplane", "crossplane"]

CURVES: tuple[Curve, ...] = ("depth dose", "inplane", "crossplane")

_ENOUGH_DEPTH = 200.0
"""How deep a depth dose must go so that it tells the beam's quality [mm]."""

SAME_ENERGY = 0.25
"""Largest difference of energies of one beam [MV]."""


@dataclass(frozen=True, eq=False)
class TankScan:
    """A measured curve of an open field in water: a depth dose on the axis, or a profile through it.

    Parameters
    ----------
    curve : str
        ``"depth dose"``, ``"inplane"`` (along the gantry's axis, IEC y) or ``"crossplane"`` (IEC x).
    energy : float
        Nominal energy [MV].
    ssd : float
        Distance from the source to the water [mm].
    field : (float, float)
        Width in x and y of the field in the isocentre plane [mm].
    depth : float or None
        Of a profile [mm]; None for a depth dose.
    position : array of shape (n,)
        Increasing depths, or distances from the axis in the plane of the profile [mm].
    dose : array of shape (n,)
        In any unit.
    leaf_axis : "x", "y" or None
        Along which axis leaves bound the field; None: jaws bound it on all sides.
    detector : str
        What it was measured with.
    origin : str
        File and number of the scan, for messages and provenance.

    Raises
    ------
    InputError
        When the numbers cannot be a curve.

    >>> scan = TankScan("depth dose", 6.0, 900.0, (100.0, 100.0), None, np.arange(5.0), np.arange(1.0, 6.0))
    >>> scan.size
    5
    """

    curve: Curve
    energy: float
    ssd: float
    field: tuple[float, float]
    depth: float | None
    position: Floats
    dose: Floats
    leaf_axis: Literal["x", "y"] | None = None
    detector: str = ""
    origin: str = "scan"

    def __post_init__(self) -> None:
        if self.curve not in CURVES:
            raise InputError(f"{self.origin}: curve must be one of {', '.join(CURVES)}, got {self.curve!r}")
        if (self.depth is None) != (self.curve == "depth dose"):
            raise InputError(
                f"{self.origin}: a profile needs a depth (depth_mm); a depth dose has depths for positions and none "
                f"besides; got {self.curve} with depth {self.depth}"
            )
        positive = [self.energy, self.ssd, *self.field] + ([] if self.depth is None else [self.depth])
        if not all(np.isfinite(value) and value > 0 for value in positive):
            raise InputError(f"{self.origin}: energy, ssd, field and depth must be > 0, got {positive}")
        order = np.argsort(np.asarray(self.position, dtype=np.float64), kind="stable")
        position, dose = (np.asarray(values, dtype=np.float64)[order] for values in (self.position, self.dose))
        if position.ndim != 1 or position.shape != dose.shape or position.size < 5:
            raise InputError(f"{self.origin}: expected five or more positions and as many doses, got {position.size}")
        if not (np.all(np.isfinite(position)) and np.all(np.isfinite(dose)) and np.all(np.diff(position) > 0)):
            raise InputError(f"{self.origin}: positions must be finite and different, doses finite")
        if dose.max() <= 0:
            raise InputError(f"{self.origin}: has no dose above 0")
        object.__setattr__(self, "position", position)
        object.__setattr__(self, "dose", dose)

    @property
    def size(self) -> int:
        """Number of points."""
        return int(self.position.size)

    @property
    def label(self) -> str:
        """What a table calls it, such as ``crossplane 10x10 at 50 mm, SSD 900 mm``."""
        x, y = (f"{side / 10:g}" for side in self.field)
        where = "" if self.depth is None else f" at {self.depth:g} mm"
        return f"{self.curve} {x}x{y}{where}, SSD {self.ssd:g} mm"


@dataclass(frozen=True)
class OutputFactor:
    """Dose per monitor unit of a field over that of the 10x10, on the axis at a depth.

    Parameters
    ----------
    field : (float, float)
        Width in x and y in the isocentre plane [mm].
    ssd, depth : float
        Where both are measured [mm].
    value : float
        The factor [1], > 0.
    energy : float
        Nominal energy [MV].

    >>> OutputFactor((50.0, 50.0), 900.0, 100.0, 0.906, 6.0).label
    'output factor 5x5 at 100 mm, SSD 900 mm'
    """

    field: tuple[float, float]
    ssd: float
    depth: float
    value: float
    energy: float

    def __post_init__(self) -> None:
        values = (*self.field, self.ssd, self.depth, self.value, self.energy)
        if not all(np.isfinite(value) and value > 0 for value in values):
            raise InputError(f"an output factor has field, ssd, depth, value and energy > 0, got {values}")

    @property
    def label(self) -> str:
        """What a table calls it."""
        x, y = (f"{side / 10:g}" for side in self.field)
        return f"output factor {x}x{y} at {self.depth:g} mm, SSD {self.ssd:g} mm"


@dataclass(frozen=True)
class TankData:
    """All that was measured of a beam.

    Parameters
    ----------
    scans : tuple of TankScan
        Curves.
    output_factors : tuple of OutputFactor
        Factors.
    notes : tuple of str
        What the files held and was left out.

    Raises
    ------
    InputError
        When energies differ.
    """

    scans: tuple[TankScan, ...]
    output_factors: tuple[OutputFactor, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "scans", tuple(self.scans))
        object.__setattr__(self, "output_factors", tuple(self.output_factors))
        energies = sorted(self._energies())
        if energies and energies[-1] - energies[0] > SAME_ENERGY:
            listed = ", ".join(f"{energy:g}" for energy in energies)
            raise InputError(
                f"the tank data are of several energies ({listed} MV): commission one beam at a time, or say which "
                "by energy="
            )

    @property
    def energy(self) -> float:
        """Nominal energy of the beam [MV]."""
        return self._energies()[0]

    def _energies(self) -> list[float]:
        return [scan.energy for scan in self.scans] + [factor.energy for factor in self.output_factors]

    @property
    def leaf_axis(self) -> Literal["x", "y"] | None:
        """Along which axis leaves bound the fields."""
        axes = {scan.leaf_axis for scan in self.scans}
        return axes.pop() if len(axes) == 1 else None

    def check(self) -> None:
        """Raise an InputError unless the curves can determine a beam."""
        kinds = {scan.curve for scan in self.scans}
        lacking = [curve for curve in CURVES if curve not in kinds]
        if lacking:
            known = ", ".join(scan.label for scan in self.scans) or "no curve at all"
            raise InputError(
                f"the tank data hold no {' and no '.join(lacking)}, but {known}: commissioning needs a depth dose and "
                "a profile in either direction, of the same energy"
            )
        deepest = max(scan.position[-1] for scan in self.scans if scan.curve == "depth dose")
        if deepest < _ENOUGH_DEPTH:
            raise InputError(
                f"no depth dose goes deeper than {deepest:g} mm: the beam's quality needs one down to "
                f"{_ENOUGH_DEPTH:g} mm"
            )
        for scan in self.scans:
            half = 0.5 * scan.field[1 if scan.curve == "inplane" else 0] * (scan.ssd + (scan.depth or 0.0)) / 1000.0
            if scan.curve != "depth dose" and max(scan.position[-1], -scan.position[0]) < half + 10.0:
                raise InputError(f"{scan.origin}: the profile ends within 10 mm of the field's edge at {half:.0f} mm")
