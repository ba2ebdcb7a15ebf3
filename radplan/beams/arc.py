"""Arcs: control points all the way round, with leaves that fit the target as each of them sees it.

The surface of the target is projected from the source onto the isocentre plane; every leaf pair opens as far as the
projection, grown by the margin, reaches into its band.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from radplan.beams.control_points import ControlPoint, DeliveryPlan, TreatmentField
from radplan.beams.place import target_center
from radplan.errors import InputError
from radplan.geometry.frames import beam_rotation, isocentre_plane, world_to_beam
from radplan.geometry.grid import Grid
from radplan.machines.limits import MachineLimits, limits_with
from radplan.machines.mlc import MLC

if TYPE_CHECKING:
    from radplan.machines.photon import PhotonMachine
    from radplan.patient.patient import Patient

Floats = npt.NDArray[np.float64]

_JAW_MARGIN = 5.0
"""How far jaws stay back from the outermost leaf ends [mm]."""
_ROUNDING = 1e-9
"""Share of a step by which an arc may be longer than a whole number of steps."""


def place_arc(
    patient: Patient,
    machine: PhotonMachine,
    mlc: MLC,
    start: float = 181.0,
    stop: float = 179.0,
    spacing: float = 2.0,
    direction: Literal["CW", "CC"] = "CW",
    collimator: float = 0.0,
    couch: float = 0.0,
    isocenter: npt.ArrayLike | None = None,
    margin: float = 5.0,
    targets: str | Sequence[str] | None = None,
    avoid: str | Sequence[str] | None = None,
    side: Literal["low", "high"] = "low",
    mu: float = 400.0,
    gantry_speed: float | None = None,
    jaws: bool = True,
    name: str = "arc",
    number: int = 1,
    limits: MachineLimits | str | None = None,
) -> DeliveryPlan:
    """Return a plan of one arc: leaves fitted to the target at every control point, monitor units spread evenly.

    This is where an optimisation starts. Several arcs are one plan of all their fields.

    Parameters
    ----------
    patient : Patient
        CT and structures.
    machine : PhotonMachine
        Gives the source-axis distance, the name and the energy.
    mlc : MLC
        The collimator; `radplan.machines.library_mlc` knows some.
    start, stop : float
        Gantry angles [degree]; alike, they are a full turn.
    spacing : float
        Largest distance of control points [degree], > 0; the arc is divided evenly.
    direction : "CW" or "CC"
        Which way round: clockwise is towards larger angles.
    collimator, couch : float
        IEC 61217 angles [degree].
    isocenter : array of shape (3,), optional
        World position [mm]; by default the mean of the targets' voxel centres.
    margin : float
        Growth of the projected target in the isocentre plane [mm], >= 0.
    targets : str or sequence of str, optional
        Structures to fit; by default the patient's `target_names`.
    avoid : str or sequence of str, optional
        Structures to shield: where a pair sees them, it opens on one side of them only. Two arcs, one for each side,
        surround what a target is wrapped around.
    side : "low" or "high"
        The side that stays open, in the x of the collimator.
    mu : float
        Monitor units of a fraction, > 0.
    gantry_speed : float, optional
        Speed at which leaves keep up with the gantry [degree/s], > 0: a pair that would have to jump between control
        points begins to open before and closes after. The linac's fastest when left out.
    jaws : bool
        Whether the jaws that the linac has follow the opening of every control point; without, leaves alone bound it.
    name, number : str, int
        Of the field.
    limits : MachineLimits or str, optional
        What the linac can do, or its name; those of the first known linac with the collimator when left out.

    Raises
    ------
    UnknownNameError
        When the patient has no structure of a name in `targets`.
    InputError
        When there is nothing to fit, a number is out of its range, or the target is larger than the collimator opens.

    >>> from radplan.machines import library_machine, library_mlc
    >>> from radplan.patient.phantoms import phantom
    >>> arc = place_arc(phantom("tg119"), library_machine("generic_photon_6mv"), library_mlc("Agility"), spacing=10.0)
    >>> len(arc.fields[0].points), arc.fields[0].points[1].gantry  # 358 degrees in 36 steps
    (37, 190.94444444444446)
    """
    linac = limits_with(mlc, limits)
    turning = linac.gantry_speed if gantry_speed is None else gantry_speed
    _check_numbers({"spacing": spacing, "mu": mu, "gantry_speed": turning}, margin, side)
    centre = np.asarray(target_center(patient, targets) if isocenter is None else isocenter, dtype=np.float64)
    if centre.shape != (3,):
        raise InputError(f"isocenter must have shape (3,), got {centre.shape}")
    angles = arc_angles(start, stop, spacing, direction)
    surface = target_surface(patient, patient.target_names if targets is None else targets)
    shielded = None if avoid is None else target_surface(patient, avoid)
    shapes, pitch = np.empty((angles.size, mlc.pairs, 2)), max(patient.ct.grid.spacing)
    for index, gantry in enumerate(angles):
        rotation = beam_rotation(gantry, couch, collimator, patient.patient_position)
        shapes[index] = fitted_leaves(*projected(surface, centre, rotation, machine.sad), mlc, linac, margin, pitch)
        if shielded is not None:
            seen = projected(shielded, centre, rotation, machine.sad)
            shapes[index] = _beside(shapes[index], *seen, mlc, linac.dynamic_gap, side, pitch)
    step = abs(_turn(start, stop, direction)) / (angles.size - 1)
    points = []
    for index, leaves in enumerate(_kept_up(shapes, linac.leaf_speed * step / turning)):
        _check_reach(leaves, linac)
        x, y = jaw_opening(leaves, mlc, linac) if jaws else (None, None)
        meterset, last = mu * index / (angles.size - 1), index == angles.size - 1
        angle = float(angles[index]), collimator, couch
        points.append(ControlPoint(meterset, *angle, centre, x, y, leaves, "NONE" if last else direction))
    field = TreatmentField(
        name, number, tuple(points), machine.sad, mlc.boundaries, energy=machine.energy, machine=machine.name
    )
    return DeliveryPlan(name, (field,), patient.fractions, patient.patient_position)


def _check_numbers(positive: Mapping[str, float], margin: float, side: str) -> None:
    for label, value in positive.items():
        if not (value > 0.0 and math.isfinite(value)):
            raise InputError(f"{label} of an arc must be > 0 and finite, got {value}")
    if not (margin >= 0.0 and math.isfinite(margin)):
        raise InputError(f"margin of an arc must be >= 0 mm, got {margin}")
    if side not in ("low", "high"):
        raise InputError(f"side of an arc must be 'low' or 'high', got {side!r}")


def arc_angles(start: float, stop: float, spacing: float, direction: Literal["CW", "CC"] = "CW") -> Floats:
    """Return the gantry angles of an arc (n,) [degree] in [0, 360), evenly spaced by `spacing` at most.

    Raises
    ------
    InputError
        When the direction is unknown.

    >>> arc_angles(350.0, 20.0, 10.0).tolist(), arc_angles(20.0, 350.0, 15.0, "CC").tolist()
    ([350.0, 0.0, 10.0, 20.0], [20.0, 5.0, 350.0])
    """
    turn = _turn(start, stop, direction)
    steps = max(math.ceil(abs(turn) / spacing - _ROUNDING), 1)
    angles: Floats = (start + turn * np.arange(steps + 1) / steps) % 360.0
    return angles


def _turn(start: float, stop: float, direction: str) -> float:
    """Return how far the gantry goes, clockwise positive [degree]."""
    if direction not in ("CW", "CC"):
        raise InputError(f"direction of an arc must be 'CW' or 'CC', got {direction!r}")
    turn = (stop - start) % 360.0 if direction == "CW" else -((start - stop) % 360.0)
    return turn or (360.0 if direction == "CW" else -360.0)


def fitted_leaves(x: Floats, y: Floats, mlc: MLC, limits: MachineLimits, margin: float, pitch: float) -> Floats:
    r"""Return leaf ends (pairs, 2) [mm] that let points of a surface through, and a disc of the margin around each.

    A pair whose band is :math:`d` away from a point opens to :math:`x \mp \sqrt{m^2 - d^2}`. Pairs that see no point
    keep the smallest gap that may move, in line with the nearest open pair.

    Parameters
    ----------
    x, y : array of shape (n,)
        Points in the isocentre plane, along and across the motion of the leaves [mm].
    mlc : MLC
        The collimator.
    limits : MachineLimits
        Gap, travel and span of its leaves.
    margin : float
        Radius m of the discs [mm], >= 0.
    pitch : float
        Distance of neighbouring points [mm]: bands narrower than it still see the surface.

    Raises
    ------
    InputError
        When the points are outside the collimator, beyond the travel of a leaf, or farther apart than a bank spans.

    >>> from radplan.machines import library_limits, library_mlc
    >>> x, y = np.asarray([-8.0, 12.0]), np.asarray([1.0, 1.0])
    >>> fitted_leaves(x, y, library_mlc("Agility"), library_limits("Versa HD"), 4.0, 1.0)[40].tolist()
    [-12.0, 16.0]
    """
    edges = mlc.boundaries
    if float(y.min()) < edges[0] or float(y.max()) > edges[-1]:
        raise InputError(
            f"the target reaches from {y.min():.0f} to {y.max():.0f} mm across the leaves, but MLC {mlc.name!r} from "
            f"{edges[0]:g} to {edges[-1]:g} mm"
        )
    leaves = np.full((mlc.pairs, 2), np.nan)
    for pair, (low, high) in enumerate(itertools.pairwise(edges)):
        away = np.maximum(np.maximum(low - y, y - high), 0.0)
        seen = away < max(margin, 0.5 * pitch)
        if seen.any():
            reach = np.sqrt(np.maximum(margin**2 - away[seen] ** 2, 0.0))
            leaves[pair] = np.min(x[seen] - reach), np.max(x[seen] + reach)
    opened = np.flatnonzero(np.isfinite(leaves[:, 0]))
    leaves[opened] = _at_least(leaves[opened], limits.dynamic_gap)
    closed = np.setdiff1d(np.arange(mlc.pairs), opened)
    nearest = opened[np.argmin(np.abs(closed[:, None] - opened), axis=1)]
    middle = leaves[nearest].mean(axis=1)
    leaves[closed] = middle[:, None] + 0.5 * limits.dynamic_gap * np.asarray([-1.0, 1.0])
    _check_reach(leaves, limits)
    return leaves


def projected(surface: Floats, centre: Floats, rotation: Floats, sad: float) -> tuple[Floats, Floats]:
    """Return where points of a surface (n, 3) are seen from the source in the isocentre plane, x and y (n,) [mm]."""
    local = world_to_beam(surface, centre, rotation)
    if float(local[:, 2].max()) >= sad:
        raise InputError(f"the target reaches behind the source, {sad:g} mm away: check the isocenter")
    x, y, _ = isocentre_plane(local, sad)
    return x, y


def _beside(leaves: Floats, x: Floats, y: Floats, mlc: MLC, gap: float, side: str, pitch: float) -> Floats:
    """Return leaf ends (pairs, 2) that stay on one side of the points wherever a pair sees any."""
    kept = leaves.copy()
    for pair, (low, high) in enumerate(itertools.pairwise(mlc.boundaries)):
        seen = x[(y > low - 0.5 * pitch) & (y < high + 0.5 * pitch)]
        if seen.size and side == "low":
            kept[pair, 1] = np.clip(seen.min(), leaves[pair, 0] + gap, leaves[pair, 1])
        elif seen.size:
            kept[pair, 0] = np.clip(seen.max(), leaves[pair, 0], leaves[pair, 1] - gap)
    return kept


def target_surface(patient: Patient, targets: str | Sequence[str]) -> Floats:
    """Return the centres of all voxel faces that structures show to the outside, (n, 3) world positions [mm]."""
    names = (targets,) if isinstance(targets, str) else tuple(targets)
    grid = patient.ct.grid
    mask = np.zeros(grid.size, dtype=bool)
    for name in names:
        structure = patient.structures[name]
        inside = slice(None) if structure.fraction is None else structure.fraction >= 0.5
        mask[structure.voxels[inside]] = True
    if not mask.any():
        raise InputError(f"no voxel belongs to {', '.join(names)} by half or more")
    return _faces(mask.reshape(grid.shape), grid)


def _faces(mask: npt.NDArray[np.bool_], grid: Grid) -> Floats:
    padded = np.pad(mask, 1)
    found = []
    for axis in range(3):
        for side in (-1, 1):
            shown = mask & ~np.roll(padded, -side, axis=axis)[1:-1, 1:-1, 1:-1]
            shift = np.zeros(3)
            shift[2 - axis] = 0.5 * side * grid.spacing[2 - axis]
            found.append(grid.points(np.flatnonzero(shown)) + shift)
    return np.concatenate(found)


def _kept_up(shapes: Floats, farthest: float) -> Floats:
    """Return leaf ends (n, pairs, 2) opened where needed so that none goes farther than allowed in a step [mm]."""
    kept = shapes.copy()
    for order in (range(1, len(kept)), range(len(kept) - 2, -1, -1)):
        for index in order:
            before = kept[index - 1 if order.step > 0 else index + 1]
            kept[index, :, 0] = np.minimum(kept[index, :, 0], before[:, 0] + farthest)
            kept[index, :, 1] = np.maximum(kept[index, :, 1], before[:, 1] - farthest)
    return kept


def _at_least(leaves: Floats, gap: float) -> Floats:
    """Return pairs (n, 2) opened about their middles to a gap at least."""
    half = 0.5 * np.maximum(leaves[:, 1] - leaves[:, 0], gap)
    apart: Floats = leaves.mean(axis=1)[:, None] + np.stack([-half, half], axis=1)
    return apart


def _check_reach(leaves: Floats, limits: MachineLimits) -> None:
    for bank, (low, high) in enumerate(limits.leaf_bounds):
        first, last = float(leaves[:, bank].min()), float(leaves[:, bank].max())
        if first < low or last > high:
            raise InputError(
                f"the target needs leaves from {first:.0f} to {last:.0f} mm, but those of MLC {limits.mlc!r} go from "
                f"{low:g} to {high:g} mm"
            )
        if last - first > limits.bank_span:
            raise InputError(
                f"the target needs leaves of one bank {last - first:.0f} mm apart, but those of MLC {limits.mlc!r} "
                f"span {limits.bank_span:g} mm: turn the collimator"
            )


def jaw_opening(leaves: Floats, mlc: MLC, limits: MachineLimits) -> tuple[Floats | None, Floats | None]:
    """Return jaws (x1, x2) and (y1, y2) [mm] around the pairs that are open; None where the linac has none."""
    opened = np.flatnonzero(leaves[:, 1] - leaves[:, 0] > limits.dynamic_gap + _ROUNDING)
    chosen = opened if opened.size else np.arange(mlc.pairs)
    along = np.asarray([leaves[chosen, 0].min() - _JAW_MARGIN, leaves[chosen, 1].max() + _JAW_MARGIN])
    across = np.asarray([mlc.boundaries[chosen[0]], mlc.boundaries[chosen[-1] + 1]])
    there = [past is not None for past in limits.jaw_past_axis]
    return along if there[0] else None, across if there[1] else None
