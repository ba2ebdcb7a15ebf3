"""What jaws and leaves of a linac let through and how sharp their edges are, where it was measured."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from radplan.errors import InputError
from radplan.machines.mlc import MLC

JAW_TRANSMISSION = 0.004
"""Fluence behind jaws over open fluence where nothing else is known: 10 cm of tungsten at 6 MV let less through."""


@dataclass(frozen=True)
class Collimation:
    """Transmission, leaf gap and the blur of leaf ends of one linac; what is None is that of its MLC's description.

    Parameters
    ----------
    leaf_end_fwhm : float
        Full width at half maximum by which rounded leaf ends blur a field edge in the isocentre plane beyond the
        source, in quadrature [mm], >= 0.
    jaw_transmission : float, optional
        Fluence behind jaws over open fluence, in [0, 1).
    leaf_transmission : float, optional
        Fluence behind leaves over open fluence, in [0, 1).
    leaf_offset : float, optional
        How far a leaf end lets through beyond its position: half the dosimetric leaf gap [mm].

    Raises
    ------
    InputError
        When a value is out of its range.

    >>> from radplan.machines.mlc import library_mlc
    >>> Collimation(leaf_transmission=0.011).of(library_mlc("Agility")).transmission
    0.011
    """

    leaf_end_fwhm: float = 0.0
    jaw_transmission: float | None = None
    leaf_transmission: float | None = None
    leaf_offset: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.leaf_end_fwhm < math.inf:
            raise InputError(f"leaf_end_fwhm must be >= 0 mm, got {self.leaf_end_fwhm}")
        for name in ("jaw_transmission", "leaf_transmission"):
            value = self.__dict__[name]
            if value is not None and not 0 <= value < 1:
                raise InputError(f"{name} must lie in [0, 1), got {value}")
        if self.leaf_offset is not None and not 0 <= self.leaf_offset < math.inf:
            raise InputError(f"leaf_offset must be >= 0 mm, got {self.leaf_offset}")

    @property
    def leaf_end_sigma(self) -> float:
        """Standard deviation of that blur [mm]."""
        return self.leaf_end_fwhm / math.sqrt(8.0 * math.log(2.0))

    def of(self, mlc: MLC) -> MLC:
        """Return a described collimator with what was measured of it in its place."""
        transmission = mlc.transmission if self.leaf_transmission is None else self.leaf_transmission
        offset = mlc.leaf_offset if self.leaf_offset is None else self.leaf_offset
        return replace(mlc, transmission=transmission, leaf_offset=offset)
