"""The dose of every field at a point, by factors that can be checked by hand, beside what was calculated.

The factors come from the machine's kernel, profile and head in closed form for square fields: no map, no voxels and
no transform are shared with the aperture engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from radplan.beams.control_points import Segment, TreatmentField
from radplan.delivery.fluence import FieldFluence, field_fluence, segment_share
from radplan.engines import ApertureOptions, aperture_model
from radplan.errors import InputError
from radplan.geometry.frames import beam_rotation, isocentre_plane, source_position, world_to_beam
from radplan.geometry.grid import Grid
from radplan.geometry.rays import radiological_depth
from radplan.machines import LowRankKernel, PhotonMachine
from radplan.machines.head import REFERENCE_SIDE
from radplan.machines.mlc import MLC
from radplan.patient.patient import Patient

if TYPE_CHECKING:
    from radplan.recalc.recalculate import Recalculation

Floats = npt.NDArray[np.float64]
Pose = tuple[float, float, float, float, float, float]
Seen = tuple[float, float, float, float]

_AROUND = 5.0
"""Side of the square about the point over which fluence is averaged [mm]."""

_SHADOW = 0.1
"""Open share below which what scatters from elsewhere is as much as what comes straight."""

_DEPTHS = np.arange(2.0, 60.0, 0.5)
"""Where the depth of maximum is looked for [mm]."""

_RADII = 600
"""Radii at which the kernel is integrated over a square."""


@dataclass(frozen=True)
class PointDose:
    r"""What a field gives a point in one fraction, factor by factor.

    :math:`D = MU \cdot K \cdot \phi \cdot S_c S_p \cdot TMR \cdot OAR \cdot (SAD/L)^2`; mean factors weigh by monitor
    units that reach the point.

    Parameters
    ----------
    number, name : int, str
        Of the field.
    mu : float
        Monitor units [MU].
    calibration : float
        K: dose per MU at the depth of maximum in the isocentre, 10x10 [Gy/MU].
    open_share : float
        phi: share of the monitor units for which the point sees the source.
    side : float
        Side of the square field that scatters alike [mm].
    depth : float
        Water-equivalent depth, mean over monitor units [mm].
    head_scatter, phantom_scatter : float
        S_c and S_p of that square, over those of the 10x10.
    tmr : float
        Tissue-maximum ratio, mean over monitor units.
    off_axis : float
        In-air profile at the point.
    inverse_square : float
        Square of SAD over the distance to the source.
    by_hand, calculated : float
        The product, and the aperture engine's dose [Gy].
    """

    number: int
    name: str
    mu: float
    calibration: float
    open_share: float
    side: float
    depth: float
    head_scatter: float
    phantom_scatter: float
    tmr: float
    off_axis: float
    inverse_square: float
    by_hand: float
    calculated: float

    @property
    def shadowed(self) -> bool:
        """Whether leaves or jaws cover the point so long that factors of open fields say nothing about its dose."""
        return self.open_share < _SHADOW

    @property
    def difference(self) -> float | None:
        """Calculated over by hand, less one; None in the shadow."""
        return None if self.shadowed else self.calculated / self.by_hand - 1.0

    def row(self) -> dict[str, float | int | str | None]:
        """Return all numbers by name."""
        return {**asdict(self), "difference": self.difference}


def point_doses(recalculation: Recalculation, point: npt.ArrayLike | None = None) -> tuple[PointDose, ...]:
    """Return the dose of every field of a recalculated plan at a point, by hand and as calculated.

    Parameters
    ----------
    recalculation : Recalculation
        The plan where it was calculated, as a rule in a water phantom.
    point : array of shape (3,), optional
        World position [mm]; the isocentre of the first field when left out.

    Raises
    ------
    InputError
        When a machine's kernel is none of radplan's own, or the point is no position.
    """
    patient = recalculation.plan.patient
    given = recalculation.delivery.fields[0].points[0].isocenter if point is None else point
    place = np.asarray(given, dtype=np.float64)
    if place.shape != (3,) or not np.all(np.isfinite(place)):
        raise InputError(f"point must be a world position (x, y, z) in mm, got {given!r}")
    fields = zip(recalculation.delivery, recalculation.machines, recalculation.mlcs, strict=True)
    return tuple(
        _point_dose(field, machine, mlc, patient, place, recalculation.options) for field, machine, mlc in fields
    )


def square_dose(machine: PhotonMachine, depth: npt.ArrayLike, side: float, stretch: float = 1.0) -> Floats:
    r"""Return the dose per MU on the axis of a square field in water at the SAD, without head scatter [Gy/MU].

    :math:`\sum_k w_k(d, s) \int_\square g_k\,p\,dA` with the in-air profile p: the kernel's share within a circle of
    radius r that lies in the square is :math:`1 - (4/\pi) \arccos(a/2r)` beyond half the side a.

    Parameters
    ----------
    machine : PhotonMachine
        With a kernel of radplan's own.
    depth : array of shape (n,)
        In water [mm].
    side : float
        Of the square in the isocentre plane [mm].
    stretch : float
        Distance from the source over SAD.

    Raises
    ------
    InputError
        When the kernel is another.
    """
    kernel = machine.kernel
    if not isinstance(kernel, LowRankKernel):
        raise InputError(f"machine {machine.name!r} has no kernel of radplan's own to check doses with")
    edges = np.linspace(0.0, side / np.sqrt(2.0), _RADII + 1)
    middle = 0.5 * (edges[:-1] + edges[1:])
    share = 1.0 - 4.0 / np.pi * np.arccos(np.minimum(0.5 * side / np.maximum(middle, 0.5 * side), 1.0))
    rings = np.diff(np.asarray(kernel.cumulative(edges)), axis=1)
    inside = rings @ (share * np.asarray(machine.fluence_profile(middle)))
    depths = np.atleast_1d(np.asarray(depth, dtype=np.float64))
    weights = np.asarray(kernel.weights(depths, np.full(depths.size, stretch)))
    dose: Floats = inside @ weights
    return dose


def equivalent_side(fluence: FieldFluence, at: float) -> float:
    r"""Return the side of the square that scatters as a fluence does, seen from where it has a value [mm].

    Area over the fluence at the point; its elongation from the second moments, so that a rectangle gets
    :math:`2ab/(a+b)` (Sterling, Perry, Katz, Br. J. Radiol. 37 (1964) 544).
    """
    area = fluence.integral / at
    total = fluence.values.sum()
    spread = []
    for axis, positions in ((0, fluence.x), (1, fluence.y)):
        share = fluence.values.sum(axis=axis) / total
        mean = float(share @ positions)
        spread.append(float(share @ (positions - mean) ** 2) + fluence.pixel**2 / 12.0)
    ratio = (spread[0] / spread[1]) ** 0.25
    return float(np.sqrt(area) * 2.0 / (ratio + 1.0 / ratio))


def _point_dose(
    field: TreatmentField,
    machine: PhotonMachine,
    mlc: MLC | None,
    patient: Patient,
    point: Floats,
    options: ApertureOptions,
) -> PointDose:
    depth_at = cache(partial(_depth, machine, patient, tuple(point.tolist())))
    seen = [_seen(segment, machine, mlc, depth_at, point) for segment in field.segments if segment.mu > 0]
    units, shares, depths, profiles, squares = np.asarray(seen).T
    mu = float(units.sum())
    open_share = float(units @ shares) / mu
    fluence = field_fluence(field, mlc)
    # Why: in the shadow there is no field about the point; the share at which a shadow begins bounds the square.
    side = equivalent_side(fluence, max(open_share, _SHADOW) * mu)
    stretch = float(1.0 / np.sqrt(units @ squares / mu))
    calibration = float(square_dose(machine, _DEPTHS, REFERENCE_SIDE).max())
    largest = float(square_dose(machine, _DEPTHS, side).max())
    tmr = square_dose(machine, depths, side, stretch) / largest
    weight = units * shares
    head = _head(machine, side)
    by_hand = float(np.sum(weight * tmr * profiles * squares)) * calibration * head * largest / calibration
    mean = weight / weight.sum() if weight.sum() > 0 else units / mu
    return PointDose(
        number=field.number,
        name=field.name,
        mu=mu,
        calibration=calibration,
        open_share=open_share,
        side=side,
        depth=float(mean @ depths),
        head_scatter=head,
        phantom_scatter=largest / calibration,
        tmr=float(mean @ tmr),
        off_axis=float(mean @ profiles),
        inverse_square=float(mean @ squares),
        by_hand=by_hand,
        calculated=_calculated(field, machine, mlc, patient, point, options),
    )


def _seen(
    segment: Segment, machine: PhotonMachine, mlc: MLC | None, depth_at: Callable[[Pose], Seen], point: Floats
) -> tuple[float, float, float, float, float]:
    """Return monitor units, open share at the point, its depth [mm], in-air profile and inverse square."""
    x0, y0, z0 = segment.isocenter(0.5).tolist()
    x, y, distance, depth = depth_at((segment.gantry(0.5), segment.couch(0.5), segment.collimator(0.5), x0, y0, z0))
    offsets = np.arange(_AROUND) - 0.5 * (_AROUND - 1.0)
    share = float(segment_share(segment, x + offsets, y + offsets, 1.0, mlc).mean())
    profile = float(machine.fluence_profile(np.asarray([np.hypot(x, y)]))[0])
    return segment.mu, share, depth, profile, (machine.sad / distance) ** 2


def _depth(machine: PhotonMachine, patient: Patient, point: tuple[float, float, float], pose: Pose) -> Seen:
    """Return where a pose (gantry, couch, collimator, isocentre) sees a point, how far and how deep it is [mm]."""
    place, isocenter = np.asarray(point)[None, :], np.asarray(pose[3:])
    rotation = beam_rotation(*pose[:3], patient.patient_position)
    (x,), (y,), (distance,) = isocentre_plane(world_to_beam(place, isocenter, rotation), machine.sad)
    source = source_position(isocenter, rotation, machine.sad)
    depth = radiological_depth(patient.density(), patient.ct.grid, source, place)[0]
    return float(x), float(y), float(distance), float(depth)


def _head(machine: PhotonMachine, side: float) -> float:
    """Return head scatter and monitor back-scatter of a square field over those of the 10x10."""
    head = machine.head
    scatter = 1.0 - head.scatter + head.scatter * head.visible(side) / head.visible(REFERENCE_SIDE)

    def monitor(width: float) -> float:
        opened = min(width / 400.0, 1.0)
        return 1.0 + head.back_scatter_upper * (1.0 - opened) + head.back_scatter_lower * opened * (1.0 - opened)

    return scatter * monitor(REFERENCE_SIDE) / monitor(side)


def _calculated(
    field: TreatmentField,
    machine: PhotonMachine,
    mlc: MLC | None,
    patient: Patient,
    point: Floats,
    options: ApertureOptions,
) -> float:
    """Return what the aperture engine gives the point [Gy]."""
    x, y, z = point.tolist()
    spot = Grid((1, 1, 1), (1.0, 1.0, 1.0), (x, y, z))
    model = aperture_model(patient, [field], machine, mlc, spot, options, dtype="float64", voxels=np.zeros(1, np.int64))
    dose = model.forward(np.asarray(model.variables.start))["physical_dose"]
    return float(dose[0, 0])
