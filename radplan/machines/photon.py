"""A photon linac: its pencil kernel, source, off-axis fluence and calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np

from radplan.arrays import Array, interp1, like
from radplan.errors import InputError
from radplan.machines.base import PencilKernel, Reference
from radplan.machines.collimation import Collimation
from radplan.machines.head import Head


@dataclass(frozen=True, eq=False)
class PhotonMachine:
    r"""Everything an engine needs to know about a photon linac.

    The dose of a bixel of unit weight is :math:`D = (SAD/L)^2 \sum_k w_k(t, L/SAD) \, (g_k * F)(x, y)`, where F is
    its fluence in the isocentre plane: the square, blurred by the source, times the off-axis profile.

    Parameters
    ----------
    name : str
        What users call it.
    energy : float
        Nominal accelerating potential [MV].
    sad : float
        Distance from the source to the isocentre [mm].
    source_fwhm : float
        Full width at half maximum of the Gaussian blur of a field edge in the isocentre plane [mm].
    profile_radius, profile : array of shape (p,)
        Radii in the isocentre plane [mm] and in-air fluence there relative to the axis [1].
    kernel : PencilKernel
        Its `basis(ssd)` gives radial functions and depth weights.
    distance : "axis" or "ray"
        What L is in the inverse-square factor: the distance along the beam axis, or the straight line from the
        source (matRad).
    reference : Reference or None
        Calibration condition; None when the machine has no monitor units, as matRad's have not.
    provenance : mapping
        Where the numbers come from; plain data.
    bixel_shift : tuple of float
        Offset of a bixel's centre from its nominal position in beam's-eye-view x and y [mm]. matRad's half-open
        pixel axes move every bixel by half a pixel, -0.25 mm in both.
    lateral_cutoff : float
        Distance from a bixel up to which engines that store its dose keep it unless told otherwise [mm], > 0.
    head : Head
        Head scatter and monitor back-scatter, for apertures; the weight of a bixel is fluence and has them inside.
    collimation : Collimation
        What was measured of jaws and leaves, for apertures.
    smallest_field : float
        Side of the smallest square field whose output the machine was judged by [mm], > 0.

    Raises
    ------
    InputError
        When a value is out of its range.

    >>> import radplan.machines as machines
    >>> linac = machines.library_machine("generic_photon_6mv")
    >>> linac.radiation, linac.reference.dose, linac.fluence_profile(np.asarray([0.0])).tolist()
    ('photons', 0.01, [1.0])
    """

    name: str
    energy: float
    sad: float
    source_fwhm: float
    profile_radius: Array
    profile: Array
    kernel: PencilKernel
    distance: Literal["axis", "ray"]
    reference: Reference | None
    provenance: Mapping[str, Any]
    bixel_shift: tuple[float, float] = (0.0, 0.0)
    lateral_cutoff: float = 75.0
    head: Head = field(default_factory=Head)
    collimation: Collimation = field(default_factory=Collimation)
    smallest_field: float = 20.0

    radiation: ClassVar[str] = "photons"

    def __repr__(self) -> str:
        return f"PhotonMachine({self.name!r}, {self.energy:g} MV, SAD {self.sad:g} mm)"

    def __post_init__(self) -> None:
        if not (self.energy > 0 and self.sad > 0 and self.source_fwhm >= 0):
            raise InputError(
                f"machine {self.name!r}: energy and sad must be > 0 and source_fwhm >= 0, "
                f"got {self.energy} MV, {self.sad} mm, {self.source_fwhm} mm"
            )
        if not 0 < self.lateral_cutoff < np.inf:
            raise InputError(f"machine {self.name!r}: lateral_cutoff must be > 0 mm, got {self.lateral_cutoff}")
        if not 0 < self.smallest_field < np.inf:
            raise InputError(f"machine {self.name!r}: smallest_field must be > 0 mm, got {self.smallest_field}")
        if self.distance not in ("axis", "ray"):
            raise InputError(f"machine {self.name!r}: distance must be 'axis' or 'ray', got {self.distance!r}")
        if self.profile.shape != self.profile_radius.shape or not np.all(np.diff(self.profile_radius) > 0):
            raise InputError(f"machine {self.name!r}: profile needs one value for each of its increasing radii")
        if not (np.all(np.isfinite(self.profile)) and np.all(self.profile >= 0)):
            raise InputError(f"machine {self.name!r}: profile must be finite and >= 0")

    @property
    def source_sigma(self) -> float:
        """Standard deviation of the source blur in the isocentre plane [mm]."""
        return self.source_fwhm / float(np.sqrt(8 * np.log(2)))

    def fluence_profile(self, radius: Array) -> Array:
        """Return the in-air fluence relative to the axis, linear between nodes and constant beyond the last.

        Parameters
        ----------
        radius : array of shape (n,)
            Distance from the axis in the isocentre plane [mm].
        """
        return interp1(radius, like(self.profile_radius, radius), like(self.profile, radius))

    def with_profile(self, radius: Array, profile: Array) -> PhotonMachine:
        """Return the machine with another off-axis profile; its calibration is left as it is."""
        return replace(self, profile_radius=radius, profile=profile)
