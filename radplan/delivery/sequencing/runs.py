"""From a fluence map at every control point of an arc to leaves and monitor units, by rule: what a network gives."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from radplan.beams.control_points import ControlPoint, DeliveryPlan, Direction, TreatmentField
from radplan.delivery.rounding import rounded_plan
from radplan.delivery.trajectories import envelope
from radplan.errors import InputError
from radplan.machines.limits import MachineLimits, limits_with
from radplan.machines.mlc import MLC
from radplan.machines.photon import PhotonMachine

Floats = npt.NDArray[np.float64]

_JAW_MARGIN = 5.0
"""How far X jaws stay back from the outermost leaf ends [mm]."""

_SPARE = 1.001
"""What monitor units per degree keep in hand of their bounds, for rounding."""


def fluence_runs(fluence: npt.ArrayLike, edges: npt.ArrayLike, threshold: float = 0.1) -> tuple[Floats, Floats]:
    r"""Return where each row of many maps opens (maps, rows, 2) [mm], and monitor units of each map (maps,) [MU].

    Cells above a share of their map's maximum are open; of every row the run with the most fluence stays. The monitor
    units are the mean of all open cells, and a first or last cell with less than that is open in proportion, so that
    the end of the opening lies within it. Rows without a run are NaN.

    Parameters
    ----------
    fluence : array of shape (maps, rows, columns)
        Fluence, >= 0 [MU].
    edges : array of shape (columns + 1,)
        Edges of the columns [mm], evenly spaced.
    threshold : float
        Share of a map's maximum, in [0, 1).

    Raises
    ------
    InputError
        When shapes do not fit, fluence is negative or not finite, or the threshold is out of its range.

    Notes
    -----
    Source: Arberet et al., arXiv:2603.06338 (2026), whose threshold is not stated.

    >>> ends, mu = fluence_runs([[[0.0, 2.0, 4.0, 4.0, 4.0, 1.0, 0.0]]], np.arange(8.0), threshold=0.3)
    >>> ends.ravel().round(3).tolist(), mu.tolist()
    ([1.429, 5.0], [3.5])
    """
    maps, x = np.asarray(fluence, dtype=np.float64), np.asarray(edges, dtype=np.float64)
    if maps.ndim != 3 or x.shape != (maps.shape[2] + 1,):
        raise InputError(f"maps of shape {maps.shape} do not fit {x.size} column edges; expected (maps, rows, columns)")
    if not np.all(np.isfinite(maps)) or np.any(maps < 0):
        raise InputError("fluence must be finite and >= 0")
    if not 0 <= threshold < 1:
        raise InputError(f"threshold must lie in [0, 1), got {threshold}")
    opened = _largest_runs(maps, maps > threshold * maps.max(axis=(1, 2), keepdims=True))
    count = opened.sum(axis=(1, 2))
    mu = np.divide((maps * opened).sum(axis=(1, 2)), count, out=np.zeros(len(maps)), where=count > 0)
    first = opened.argmax(axis=2)
    last = first + opened.sum(axis=2) - 1
    some = last >= first
    level = np.where(mu > 0, mu, 1.0)[:, None]
    shares = [
        np.clip(np.take_along_axis(maps, np.maximum(end, 0)[..., None], axis=2)[..., 0] / level, 0.0, 1.0)
        for end in (first, last)
    ]
    width = x[1] - x[0]
    low = x[first + 1] - shares[0] * width
    high = x[np.maximum(last, 0)] + shares[1] * width
    alone = first == last
    middle = 0.5 * (x[first] + x[first + 1])
    low = np.where(alone, middle - 0.5 * shares[0] * width, low)
    high = np.where(alone, middle + 0.5 * shares[0] * width, high)
    ends = np.where(some[..., None], np.stack([low, high], axis=2), np.nan)
    return ends, mu


def arc_of_fluence(
    fluence: npt.ArrayLike,
    edges: npt.ArrayLike,
    gantry: npt.ArrayLike,
    isocenter: npt.ArrayLike,
    machine: PhotonMachine,
    mlc: MLC,
    limits: MachineLimits | str | None = None,
    threshold: float = 0.1,
    collimator: float = 0.0,
    couch: float = 0.0,
    gantry_speed: float | None = None,
    fractions: int | None = None,
    patient_position: str = "HFS",
    number: int = 1,
) -> DeliveryPlan:
    """Return an arc that a linac can deliver, from a fluence map at every control point; no dose is calculated.

    Openings are those of `fluence_runs`, less the leaf offset; pairs without one stand closed in line with the nearest
    that has. Gaps are opened to the least of a moving pair, leaves are brought to where they can follow the gantry, and
    monitor units between their bounds per degree. It is a start for an optimisation, or a quick look.

    Parameters
    ----------
    fluence : array of shape (control points, pairs, columns)
        What every leaf pair should give around each control point [MU].
    edges : array of shape (columns + 1,)
        Edges of the columns along the motion of the leaves [mm].
    gantry : array of shape (control points,)
        Angles in the order of delivery [degree], all turning one way.
    isocenter : array of shape (3,)
        World position [mm].
    machine : PhotonMachine
        Gives energy, name and source-axis distance.
    mlc : MLC
        The collimator.
    limits : MachineLimits or str, optional
        What the linac can do, less its margin; that of the library with this collimator when left out.
    threshold : float
        See `fluence_runs`.
    collimator, couch : float
        Angles [degree].
    gantry_speed : float, optional
        At which leaves keep up [degree/s]; half the largest when left out: the slower, the farther leaves may go.
    fractions : int, optional
        Planned number of fractions.
    patient_position : str
        How the patient lies.
    number : int
        Of the field.

    Raises
    ------
    InputError
        When shapes do not fit, angles do not turn one way, there is no fluence, or leaves of a bank would be farther
        apart than they can.
    """
    maps, angles = np.asarray(fluence, dtype=np.float64), np.asarray(gantry, dtype=np.float64)
    allowed = limits_with(mlc, limits)
    _turns(angles, maps, mlc)
    ends, mu = fluence_runs(maps, edges, threshold)
    if not np.any(mu > 0):
        raise InputError("the fluence is zero at every control point: there is nothing to sequence")
    leaves = _placed(ends, mlc, allowed)
    shown = np.isfinite(ends[..., 0])
    return arc_of_openings(
        leaves, shown, _between(mu), angles, isocenter, machine, mlc, allowed, collimator, couch, gantry_speed,
        fractions, patient_position, number,
    )  # fmt: skip


def arc_of_openings(
    leaves: npt.ArrayLike,
    opened: npt.ArrayLike,
    mu: npt.ArrayLike,
    gantry: npt.ArrayLike,
    isocenter: npt.ArrayLike,
    machine: PhotonMachine,
    mlc: MLC,
    limits: MachineLimits | str | None = None,
    collimator: float = 0.0,
    couch: float = 0.0,
    gantry_speed: float | None = None,
    fractions: int | None = None,
    patient_position: str = "HFS",
    number: int = 1,
    jaws: npt.ArrayLike | None = None,
) -> DeliveryPlan:
    """Return the arc that a linac can deliver nearest to given leaves: gaps, leaf speed, monitor units, jaws.

    Parameters
    ----------
    leaves : array of shape (control points, pairs, 2)
        Ends of every pair [mm].
    opened : array of bool, shape (control points, pairs)
        Which pairs are meant to open; jaws stand around these.
    mu : array of shape (control points - 1,)
        What is to be given between each control point and the next [MU].
    gantry, isocenter, machine, mlc, limits, collimator, couch, gantry_speed, fractions, patient_position, number
        As for `arc_of_fluence`.
    jaws : array of shape (2, 2), optional
        Ends of the x and of the y jaws [mm], moved to where the linac's can stand; around what opens when left out.

    Raises
    ------
    InputError
        When shapes do not fit, angles do not turn one way, or leaves of a bank would be farther apart than they can.
    """
    allowed, ends = limits_with(mlc, limits), np.asarray(leaves, dtype=np.float64)
    angles = np.asarray(gantry, dtype=np.float64)
    turns = _turns(angles, ends, mlc)
    middle, half = ends.mean(axis=2), np.maximum(0.5 * np.ptp(ends, axis=2), 0.5 * allowed.dynamic_gap)
    apart = np.stack([middle - half, middle + half], axis=2)
    keeping = allowed.planning()
    speed = 0.5 * keeping.gantry_speed if gantry_speed is None else gantry_speed
    fewest, most = (rate * np.abs(turns) for rate in allowed.mu_per_degree)
    units = np.clip(np.asarray(mu, dtype=np.float64), _SPARE * fewest, most / _SPARE)
    travel = keeping.leaf_speed * np.abs(turns) / speed
    flat = apart.transpose(0, 2, 1).reshape(len(apart), -1)
    kept = np.asarray(envelope(flat, travel).values).reshape(len(apart), 2, -1).transpose(0, 2, 1)
    span = float(np.max(np.ptp(kept, axis=(0, 1))))
    if span > allowed.bank_span:
        raise InputError(
            f"leaves of one bank would be {span:.0f} mm apart, but those of "
            f"{allowed.name!r} can be {allowed.bank_span:g} mm: turn the collimator"
        )
    metersets = np.concatenate([[0.0], np.cumsum(units)])
    around = _opening(kept, np.asarray(opened, dtype=bool), mlc) if jaws is None else np.asarray(jaws)
    jaws_x, jaws_y = _jaws(around, allowed)
    direction: Direction = "CW" if turns[0] > 0 else "CC"
    points = [
        ControlPoint(
            float(metersets[index]), float(angles[index]) % 360.0, collimator, couch, np.asarray(isocenter), jaws_x,
            jaws_y, kept[index], "NONE" if index == len(angles) - 1 else direction,
        )
        for index in range(len(angles))
    ]  # fmt: skip
    field = TreatmentField(
        f"{number} arc", number, tuple(points), machine.sad, mlc.boundaries, energy=machine.energy, machine=machine.name
    )
    return rounded_plan(DeliveryPlan("arc", (field,), fractions, patient_position), allowed)


def _largest_runs(maps: Floats, opened: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return of every row only the open run with the most fluence."""
    begins = opened.copy()
    begins[..., 1:] &= ~opened[..., :-1]
    run = np.cumsum(begins.ravel()).reshape(opened.shape)
    total = np.bincount(run[opened], weights=maps[opened], minlength=int(run.ravel()[-1]) + 1 if run.size else 1)
    weight = np.where(opened, total[run], -1.0)
    best = np.take_along_axis(run, weight.argmax(axis=2)[..., None], axis=2)
    kept: npt.NDArray[np.bool_] = opened & (run == best)
    return kept


def _turns(angles: Floats, maps: Floats, mlc: MLC) -> Floats:
    """Return how far the gantry turns between control points, clockwise positive [degree]."""
    if maps.ndim != 3 or angles.shape != (len(maps),) or len(maps) < 2 or maps.shape[1] != mlc.pairs:
        raise InputError(
            f"shape {maps.shape} does not fit {angles.size} angles and {mlc.pairs} leaf pairs; expected (control "
            "points, pairs, columns or ends), two control points or more"
        )
    turns = (np.diff(angles) + 180.0) % 360.0 - 180.0
    if not (np.all(turns > 0) or np.all(turns < 0)):
        raise InputError("gantry angles of an arc must all turn one way, in the order of delivery")
    return np.asarray(turns)


def _between(mu: Floats) -> Floats:
    """Return monitor units of the segments from those around control points; their sum stays."""
    units = 0.5 * (mu[:-1] + mu[1:])
    units[0] += 0.5 * mu[0]
    units[-1] += 0.5 * mu[-1]
    return np.asarray(units)


def _placed(ends: Floats, mlc: MLC, limits: MachineLimits) -> Floats:
    """Return leaf ends of all pairs (control points, pairs, 2) [mm], at least the gap of a moving pair apart."""
    leaves = ends + mlc.leaf_offset * np.asarray([1.0, -1.0])
    some = np.isfinite(ends[..., 0])
    known = np.flatnonzero(some.any(axis=1))
    centres = leaves.mean(axis=2)
    for index in known:
        pairs = np.flatnonzero(some[index])
        nearest = pairs[np.argmin(np.abs(np.arange(mlc.pairs)[:, None] - pairs), axis=1)]
        centres[index] = np.where(some[index], centres[index], centres[index, nearest])
    for index in np.flatnonzero(~some.any(axis=1)):
        centres[index] = centres[known[np.argmin(np.abs(known - index))]]
    half = np.where(some, 0.5 * (leaves[..., 1] - leaves[..., 0]), 0.0)
    half = np.maximum(half, 0.5 * limits.dynamic_gap)
    placed: Floats = np.stack([centres - half, centres + half], axis=2)
    return placed


def _opening(leaves: Floats, opened: npt.NDArray[np.bool_], mlc: MLC) -> Floats:
    """Return the rectangle (2, 2) around all pairs that open at any control point, with a margin along x [mm]."""
    pairs = np.flatnonzero(opened.any(axis=0))
    seen = leaves[:, pairs]
    along = [seen[..., 0].min() - _JAW_MARGIN, seen[..., 1].max() + _JAW_MARGIN]
    return np.asarray([along, [mlc.boundaries[pairs[0]], mlc.boundaries[pairs[-1] + 1]]])


def _jaws(around: Floats, limits: MachineLimits) -> tuple[Floats | None, Floats | None]:
    """Return x and y jaws nearest to a rectangle (2, 2) [mm]; None where the linac has none."""
    jaws: list[Floats | None] = []
    for axis, opening in enumerate(around):
        bounds = limits.jaw_bounds(axis)
        if bounds is None:
            jaws.append(None)
            continue
        (low, past), (other_past, high) = bounds
        jaws.append(np.asarray([min(max(opening[0], low), past), max(min(opening[1], high), other_past)]))
    return jaws[0], jaws[1]
