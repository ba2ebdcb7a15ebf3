"""Control points of an RTPLAN against the limits of a linac; knows nothing of how radplan makes or checks plans."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from radplan.machines.limits import MachineLimits

Dataset = Any
Floats = npt.NDArray[np.float64]
Finding = tuple[str, str]

_ROUNDED = 0.0101
"""What positions may be beyond a limit by rounding to 0.01 mm [mm]."""

_RELATIVE = 2e-3
"""What rates may be beyond a limit by rounding, as a share."""

_FIXED = {"BeamLimitingDeviceAngle": "collimator", "PatientSupportAngle": "couch"}
_AXIS = {"X": 0, "ASYMX": 0, "Y": 1, "ASYMY": 1}


@dataclass(frozen=True, eq=False)
class Motion:
    """One beam as its control points state it, with what is not repeated carried over.

    Parameters
    ----------
    number : int
        Of the beam.
    mu : float
        Monitor units [MU].
    weight : array of shape (n,)
        Share of the meterset given so far.
    gantry : array of shape (n,)
        Angles [degree].
    direction : tuple of str
        To the next control point.
    devices : mapping of str to array
        Positions by device: (n, 2, pairs), first and second bank [mm].
    energy : float, optional
        Nominal energy [MV].
    mode : str
        ``"STANDARD"``, or what the beam says of having no flattening filter.
    boundaries : array, optional
        Of the leaves [mm].
    fixed : mapping of str to array
        Angles of collimator and couch (n,) [degree].
    """

    number: int
    mu: float
    weight: Floats
    gantry: Floats
    direction: tuple[str, ...]
    devices: Mapping[str, Floats]
    energy: float | None
    mode: str
    boundaries: Floats | None = None
    fixed: Mapping[str, Floats] = field(default_factory=dict)

    @property
    def turns(self) -> Floats:
        """How far the gantry turns to the next control point, clockwise positive (n - 1,) [degree]."""
        steps = np.diff(self.gantry)
        shorter = (steps + 180.0) % 360.0 - 180.0
        said = np.asarray([{"CW": 1, "CC": -1, "CCW": -1}.get(word, 0) for word in self.direction[:-1]])
        clockwise, counter = steps % 360.0, -((-steps) % 360.0)
        return np.where(shorter == 0.0, 0.0, np.where(said > 0, clockwise, np.where(said < 0, counter, shorter)))


def motion_of(beam: Dataset, mu: float) -> tuple[Motion | None, list[Finding]]:
    """Return a beam's motion, or None with the reasons why it has none."""
    where = f"beam {beam.get('BeamNumber')}"
    points = list(beam.get("ControlPointSequence") or [])
    findings = list(_meterset_findings(beam, points, where))
    pairs = {str(d.get("RTBeamLimitingDeviceType")): d for d in beam.get("BeamLimitingDeviceSequence") or []}
    state: dict[str, Any] = {"direction": "NONE"}
    rows: list[dict[str, Any]] = []
    for index, point in enumerate(points):
        findings += _take(point, state, pairs, f"{where}, control point {index}")
        rows.append(dict(state))
    if points:
        lacking = [kind for kind in pairs if kind not in rows[0]] + [k for k in ("gantry", *_FIXED) if k not in rows[0]]
        findings += [(f"{where}, control point 0", f"does not say where {kind} stands") for kind in lacking]
    if findings or len(points) < 2:
        return None, findings or [(where, f"has {len(points)} control points; expected two or more")]
    final = number(beam.get("FinalCumulativeMetersetWeight"))
    leaves = next((kind for kind in pairs if kind.startswith("MLC")), None)
    modes = list(beam.get("PrimaryFluenceModeSequence") or [])
    filtered = not modes or str(modes[0].get("FluenceMode", "STANDARD")) == "STANDARD"
    energy = points[0].get("NominalBeamEnergy")
    return Motion(
        number=int(beam.BeamNumber),
        mu=mu,
        weight=np.asarray([number(point.CumulativeMetersetWeight) for point in points]) / final,
        gantry=np.asarray([row["gantry"] for row in rows]),
        direction=tuple(row["direction"] for row in rows),
        devices={kind: np.stack([row[kind] for row in rows]) for kind in pairs},
        energy=None if energy is None else number(energy),
        mode="STANDARD" if filtered else str(modes[0].get("FluenceModeID", "FFF")),
        boundaries=None if leaves is None else np.asarray(pairs[leaves].LeafPositionBoundaries, dtype=np.float64),
        fixed={name: np.asarray([row[keyword] for row in rows]) for keyword, name in _FIXED.items()},
    ), []


def number(value: Any) -> float:
    """Return an attribute as a number; NaN where it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _numbers(dataset: Dataset, keyword: str) -> Floats:
    """Return the numbers of an attribute, NaN where one is none; none where it is absent."""
    from pydicom.dataelem import RawDataElement

    if keyword not in dataset:
        return np.zeros(0)
    element = dataset.get_item(keyword)
    if isinstance(element, RawDataElement):
        parts = (element.value or b"").decode("latin-1").rstrip("\0 ").split("\\")
        return np.asarray([number(part) for part in parts if part.strip()])
    return np.asarray([number(part) for part in np.atleast_1d(np.asarray(element.value, dtype=object))])


def _meterset_findings(beam: Dataset, points: list[Dataset], where: str) -> Iterator[Finding]:
    final = number(beam.get("FinalCumulativeMetersetWeight"))
    if not (final > 0 and math.isfinite(final)):
        yield where, f"has a FinalCumulativeMetersetWeight of {beam.get('FinalCumulativeMetersetWeight')}; expected > 0"
        return
    before = 0.0
    for index, point in enumerate(points):
        weight = number(point.get("CumulativeMetersetWeight"))
        place = f"{where}, control point {index}"
        if not math.isfinite(weight):
            yield place, "has a CumulativeMetersetWeight that is no finite number"
            return
        if index == 0 and weight != 0:
            yield place, f"begins at a meterset weight of {weight:g}; expected 0"
        if weight < before:
            yield place, f"has a meterset weight of {weight:g}, less than the {before:g} before"
        before = weight
    if points and abs(before - final) > 1e-6 * final:
        yield where, f"ends at a meterset weight of {before:g}, not at the final one of {final:g}"


def _take(point: Dataset, state: dict[str, Any], pairs: Mapping[str, Dataset], where: str) -> Iterator[Finding]:
    """Take over what a control point states; tell what cannot be used."""
    for keyword, name in {"GantryAngle": "gantry", **{keyword: keyword for keyword in _FIXED}}.items():
        if point.get(keyword) is not None:
            state[name] = number(point.get(keyword))
            if not math.isfinite(state[name]):
                yield where, f"has a {keyword} that is no finite number"
    if point.get("GantryRotationDirection") is not None:
        state["direction"] = str(point.GantryRotationDirection)
    for device in point.get("BeamLimitingDevicePositionSequence") or []:
        kind = str(device.get("RTBeamLimitingDeviceType"))
        if kind not in pairs:
            yield where, f"moves {kind}, which the beam does not have"
            continue
        wanted = 2 * int(number(pairs[kind].get("NumberOfLeafJawPairs")) or 0)
        values = _numbers(device, "LeafJawPositions")
        if values.size != wanted:
            yield where, f"states {values.size} positions of {kind}; expected {wanted}"
        elif not np.all(np.isfinite(values)):
            yield where, f"states a position of {kind} that is no finite number"
        else:
            state[kind] = values.reshape(2, -1)


def motion_findings(motion: Motion, limits: MachineLimits) -> Iterator[Finding]:
    """Tell which limits a beam breaks, one line for each limit and place."""
    mu = motion.mu * np.diff(motion.weight)
    on = mu > 1e-9
    for kind, stands in motion.devices.items():
        crossed = stands[:, 0] - stands[:, 1]
        for index in np.flatnonzero(crossed.max(axis=1) > _ROUNDED):
            pair = int(crossed[index].argmax())
            yield f"beam {motion.number}, control point {index}", f"pair {pair + 1} of {kind} crosses"
        yield from (_leaf_findings if kind.startswith("MLC") else _jaw_findings)(motion, kind, stands, on, limits)
    yield from _gantry_findings(motion, mu, on, limits)
    for name, angles in motion.fixed.items():
        moved = np.abs((np.diff(angles) + 180.0) % 360.0 - 180.0) * on
        if moved.max(initial=0.0) > 0.05:
            yield f"beam {motion.number}, control point {int(moved.argmax())}", f"the {name} turns under beam"


def segment_seconds(motion: Motion, limits: MachineLimits) -> Floats:
    """Return how long every segment takes at least (n - 1,) [s]: dose rate, gantry, leaves and jaws."""
    mu = motion.mu * np.diff(motion.weight)
    seconds = np.maximum(
        60.0 * mu / limits.dose_rate(motion.energy, motion.mode), np.abs(motion.turns) / limits.gantry_speed
    )
    for kind, stands in motion.devices.items():
        speed = limits.leaf_speed if kind.startswith("MLC") else limits.jaw_speed[_AXIS[kind]]
        if speed is not None:
            seconds = np.maximum(seconds, np.abs(np.diff(stands, axis=0)).max(axis=(1, 2)) / speed)
    return np.asarray(seconds)


def _leaf_findings(
    motion: Motion, kind: str, stands: Floats, on: npt.NDArray[np.bool_], limits: MachineLimits
) -> Iterator[Finding]:
    where = f"beam {motion.number}, control point"
    edges = limits.collimator().boundaries
    if (
        motion.boundaries is None
        or motion.boundaries.size != edges.size
        or np.max(np.abs(motion.boundaries - edges)) > 0.05
    ):
        yield f"beam {motion.number}", f"its {kind} is not the {limits.mlc} of {limits.name}"
        return
    for bank, (low, high) in enumerate(limits.leaf_bounds):
        beyond = np.maximum(low - stands[:, bank], stands[:, bank] - high).max(axis=1)
        for index in np.flatnonzero(beyond > _ROUNDED):
            yield f"{where} {index}", f"a leaf of bank {bank + 1} is {beyond[index]:.2f} mm beyond its travel"
    gap = stands[:, 1] - stands[:, 0]
    moves = (np.abs(np.diff(stands, axis=0)).max(axis=1) > 0) & on[:, None]
    ends = np.minimum(gap[:-1], gap[1:])
    for index in np.flatnonzero(np.any(moves & (ends < limits.dynamic_gap - _ROUNDED), axis=1)):
        least = ends[index][moves[index]].min()
        yield (
            f"{where} {index}",
            f"a pair that moves under beam has a gap of {least:.2f} mm; {limits.dynamic_gap} is least",
        )
    for index in np.flatnonzero(gap.min(axis=1) < limits.static_gap - _ROUNDED):
        yield f"{where} {index}", f"a gap of {gap[index].min():.2f} mm; {limits.static_gap} is least"
    if limits.neighbour_gap is not None:
        apart = np.minimum(stands[:, 1, 1:] - stands[:, 0, :-1], stands[:, 1, :-1] - stands[:, 0, 1:]).min(axis=1)
        for index in np.flatnonzero(apart < limits.neighbour_gap - _ROUNDED):
            yield f"{where} {index}", f"a leaf is {apart[index]:.2f} mm from an opposed neighbour"
    arc = np.any(motion.turns[on] != 0)
    groups = np.zeros(len(stands), dtype=int) if arc else np.concatenate([[0], np.cumsum(~on)])
    for group in np.unique(groups):
        part = stands[groups == group]
        span = (part.max(axis=(0, 2)) - part.min(axis=(0, 2))).max()
        if span > limits.bank_span + _ROUNDED:
            first = int(np.argmax(groups == group))
            yield f"{where} {first}", f"leaves of one bank are {span:.1f} mm apart; {limits.bank_span:g} are possible"


def _jaw_findings(
    motion: Motion, kind: str, stands: Floats, on: npt.NDArray[np.bool_], limits: MachineLimits
) -> Iterator[Finding]:
    bounds = limits.jaw_bounds(_AXIS[kind])
    if bounds is None:
        yield f"beam {motion.number}", f"has jaws {kind}, but {limits.name} has none there"
        return
    for side, (low, high) in enumerate(bounds):
        beyond = np.maximum(low - stands[:, side, 0], stands[:, side, 0] - high)
        for index in np.flatnonzero(beyond > _ROUNDED):
            position = stands[index, side, 0]
            yield (
                f"beam {motion.number}, control point {index}",
                f"jaw {side + 1} of {kind} stands at {position:.1f} mm",
            )
    moved = (np.abs(np.diff(stands, axis=0)).max(axis=(1, 2)) > 0) & on
    if moved.any() and not limits.jaw_tracking:
        yield f"beam {motion.number}, control point {int(moved.argmax())}", f"{kind} moves under beam"


def _gantry_findings(motion: Motion, mu: Floats, on: npt.NDArray[np.bool_], limits: MachineLimits) -> Iterator[Finding]:
    turns = motion.turns
    start, stop = limits.arc_stops
    reach = (stop - start) % 360.0
    seconds = segment_seconds(motion, limits)
    for index in np.flatnonzero((turns != 0) & on):
        where = f"beam {motion.number}, control point {index}"
        if motion.direction[index] == "NONE":
            yield where, "the gantry turns without a direction"
        begin = (motion.gantry[index] - start) % 360.0
        if begin > reach + 1e-3 or not -1e-3 <= begin + turns[index] <= reach + 1e-3:
            way = f"{turns[index]:g} degrees from {motion.gantry[index]:g}"
            yield where, f"the gantry turns {way}, past a stop: is its direction against its angles?"
        rate = mu[index] / abs(turns[index])
        fewest, most = limits.mu_per_degree
        if not fewest * (1 - _RELATIVE) <= rate <= most * (1 + _RELATIVE):
            yield where, f"{rate:.3g} MU per degree; {fewest:g} to {most:g} are possible"
        slowest = abs(turns[index]) / limits.gantry_speed_least if limits.gantry_speed_least > 0 else math.inf
        if seconds[index] > slowest * (1 + _RELATIVE):
            yield where, f"takes {seconds[index]:.1f} s, but the gantry is there after {slowest:.1f} s at its slowest"
